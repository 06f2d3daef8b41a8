"""What the published audio codecs share: a VAE over mel frames and a vocoder, loaded when first called for.

B clips, S samples, C channels, T latents.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ccl.codecs.base import AudioCodec
from ccl.weights.frozen import Frozen


class FrozenAudioCodec(AudioCodec):
    """An audio codec of a published VAE and vocoder, always in float32.

    Neither is looked at before it is needed, so that a model can be built where they are not. A subclass says how they
    are loaded, and what they make of whole latents.

    Args:
        vae: file or folder of the VAE, or a name of `ccl weights list`.
        vocoder: the same of the vocoder; None for a codec that only encodes.

    Attributes:
        samples: of a latent.
    """

    sources = ("vae", "vocoder")
    samples: int

    def __init__(self, vae: str | Path, vocoder: str | Path | None) -> None:
        super().__init__()
        self.vae_source, self.vocoder_source = vae, vocoder
        self.vae: Frozen[Any] = Frozen(self.load_vae)
        self.vocoder: Frozen[Any] = Frozen(self._load_vocoder)

    @abstractmethod
    def load_vae(self, device: torch.device) -> nn.Module:
        """The VAE on a device; ValueError, in a sentence, where it is absent or another."""

    @abstractmethod
    def load_vocoder(self, source: str | Path, device: torch.device) -> nn.Module:
        """As of the VAE, from what was given as `vocoder`."""

    @abstractmethod
    def latents(self, audio: Float[Tensor, "b s"], length: int) -> Float[Tensor, "b c t"]:
        """Normalised latents of sound that is as long as they are."""

    @abstractmethod
    def sound(self, z: Float[Tensor, "b c t"]) -> Float[Tensor, "b s"]:
        """Samples in [-1, 1] of normalised latents."""

    def unload(self) -> None:
        self.vae.unload()
        self.vocoder.unload()

    @torch.no_grad()
    def encode(self, audio: Float[Tensor, "b s"], length: int) -> Float[Tensor, "b c t"]:
        self.check_sound(audio, length)
        with torch.autocast(audio.device.type, enabled=False):
            # The caller's count decides, never the waveform's own: 5 s at 16 kHz are 156 whole latents, and the paper's
            # grid may ask for 157. A negative pad cuts.
            return self.latents(F.pad(audio.float(), (0, length * self.samples - audio.shape[1])), length)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "b c t"]) -> Float[Tensor, "b s"]:
        self.check_latents(z)
        with torch.autocast(z.device.type, enabled=False):
            return self.sound(z.float())

    def _load_vocoder(self, device: torch.device) -> nn.Module:
        if self.vocoder_source is None:
            name = type(self).__name__
            raise ValueError(f"{name} was given no vocoder, and cannot decode without: name one, `vocoder`")
        return self.load_vocoder(self.vocoder_source, device)
