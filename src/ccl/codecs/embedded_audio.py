"""An audio codec without weights to train: pairs of log-mel frames on a fitted basis, and Griffin-Lim back.

512 samples at 16 kHz become one latent, so 31.25 a second, the rate of MMAudio's 16 kHz VAE. Latent j holds samples
512 j to 512 (j + 1). Encoding is a projection of each pair alone; decoding adds what the pairs before and after it tell
(refine.py).

B clips, S samples, T latents, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ccl.codecs.base import AudioCodec
from ccl.codecs.mel import LogMel
from ccl.codecs.projection import BasisFile
from ccl.codecs.refine import PAIRS, Refiner

PAIR = 2  # log-mel frames a latent
MOST = 1000  # iterations; after a hundred nothing is heard of more


class EmbeddedAudio(AudioCodec):
    """Log-mel pairs on a basis fitted to the embedded world's speech and events.

    Args:
        channels: numbers a latent; the basis file has as many. 40 keep the speech, 24 lose words.
        basis: a file made by `ccl codec fit`; the shipped one if not given.
        iterations: of Griffin-Lim.

    Raises:
        ValueError: where the basis file is missing, broken or of another number of channels, or the iterations are
            beyond MOST.
    """

    sample_rate = 16_000
    latent_rate = 31.25

    def __init__(self, channels: int = 40, basis: str | None = None, iterations: int = 48) -> None:
        super().__init__()
        if not 0 <= iterations <= MOST:
            raise ValueError(f"the audio codec's iterations is {iterations}; it must be from 0 to {MOST}")
        self.channels = channels
        self.mel = LogMel(sample_rate=self.sample_rate, iterations=iterations)
        file = BasisFile(basis)
        self.pairs, self._space = file.basis("audio", channels), file.space("audio", self.mel.settings)
        # Files of older fits have none.
        corrected = file.has("audio", "inward", "outward")
        self.refine = Refiner(channels, *file.take("audio", "inward", "outward"), places=PAIRS) if corrected else None
        self.samples = PAIR * self.mel.hop  # a latent

    @property
    def identity(self) -> str:
        return f"embedded-audio-{self.channels}-{self._space}"

    @torch.no_grad()
    def encode(self, audio: Float[Tensor, "b s"], length: int) -> Float[Tensor, "b c t"]:
        self.check_sound(audio, length)
        with torch.autocast(audio.device.type, enabled=False):
            # A negative pad cuts.
            audio = F.pad(audio.float(), (0, length * self.samples - audio.shape[1]))
            frames = rearrange(self.mel(audio), "b (t p) m -> b t (p m)", p=PAIR)
            return rearrange(self.pairs.project(frames), "b t c -> b c t").contiguous()

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "b c t"]) -> Float[Tensor, "b s"]:
        self.check_latents(z)
        with torch.autocast(z.device.type, enabled=False):
            latents = rearrange(z.float(), "b c t -> b t c")
            frames = self.pairs.expand(latents)
            if self.refine is not None:
                frames = frames + self.refine(latents)
            return self.mel.invert(rearrange(frames, "b t (p m) -> b (t p) m", p=PAIR))
