"""LTX-2's audio VAE and vocoder, as diffusers has them (AutoencoderKLLTX2Audio, LTX2Vocoder).

25 latents a second of 128 numbers: 8 channels of 16 bins, from 64 mel bands at 100 frames a second. The network hears
16 kHz in stereo and speaks 24 kHz in stereo; this codec is mono, and 24 kHz at both ends. So the sound is doubled on
the way in and averaged on the way out, and nothing is resampled: the short-time Fourier transform of the 24 kHz sound,
with a window as long in seconds, has the same bins up to 8 kHz. (LTX-2 resamples to 16 kHz first, which also dampens
the four highest bands, above 7 kHz, of a sound that has more to say there.)

B clips, S samples, M mel bands, N mel frames, C channels, T latents.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ccl.codecs.base import check_statistics
from ccl.codecs.frozen_audio import FrozenAudioCodec
from ccl.codecs.mel import MelMagnitude
from ccl.weights.fill import fill
from ccl.weights.find import find
from ccl.weights.read import digest, read_json, stamp, tensors

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

VAE, VOCODER = "LTX-2's audio VAE", "LTX-2's vocoder"  # as messages call them
# What the front end and the lengths below rest on; other values are another codec.
VAE_CONFIG = {
    "sample_rate": 16_000,
    "mel_hop_length": 160,
    "mel_bins": 64,
    "in_channels": 2,
    "latent_channels": 8,
    "causality_axis": "height",
}
VOCODER_CONFIG = {"in_channels": 128, "out_channels": 2, "output_sampling_rate": 24_000}
STRIDE = 4  # mel frames a latent, but for the first, which holds one: the VAE is causal
RATIO = 1.5  # 24 kHz over the VAE's 16
HOP = 240
MEL = MelMagnitude(24_000, 1536, HOP, 64, side=768, top_hz=8000.0)  # 1024, 160, 64, centred frames at 16 kHz
FLOOR = 1e-5  # mel magnitudes are clamped to it before the logarithm


class LTX2Audio(FrozenAudioCodec):
    """The audio codec of LTX-2, always in float32; latents are normalised by the statistics in the VAE's file.

    Neither folder is looked at before it is needed, so that a model can be built where they are not.

    Args:
        vae: folder of the VAE in diffusers' layout, or of a pipeline with audio_vae/ in it, or OWNER/REPO of the hub.
        vocoder: likewise, with vocoder/ in it. LTX-2.3's, which extends the band to 48 kHz, is another network. None
            for a codec that only encodes.

    Raises:
        ValueError: from the methods, where a folder is absent or not what it should be, or there is no vocoder to
            decode with.
    """

    channels = 128
    sample_rate = 24_000
    latent_rate = 25.0
    samples = STRIDE * HOP  # a latent

    def __init__(self, vae: str | Path, vocoder: str | Path | None = None) -> None:
        super().__init__(vae, vocoder)

    @property
    def identity(self) -> str:
        """Of the encoder's weights and the statistics."""
        source = locate(self.vae_source, "audio_vae", VAE)
        return f"ltx2-audio-{encoder_digest(source, stamp(source))}"

    def load_vae(self, device: torch.device) -> AutoencoderKLLTX2Audio:
        from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio

        source = locate(self.vae_source, "audio_vae", VAE)
        vae = load(AutoencoderKLLTX2Audio, source, VAE_CONFIG, device)
        check_statistics(vae.latents_mean, vae.latents_std, self.channels, source)
        return vae

    def load_vocoder(self, source: str | Path, device: torch.device) -> LTX2Vocoder:
        from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

        return load(LTX2Vocoder, locate(source, "vocoder", VOCODER), VOCODER_CONFIG, device)

    def latents(self, audio: Float[Tensor, "b s"], length: int) -> Float[Tensor, "b c t"]:
        # The frames left over belong to a latent beyond the last one.
        mel = log_mel(audio)[:, :, : STRIDE * length - (STRIDE - 1)]
        vae = self.vae.on(audio.device)
        mean = vae.encode(rearrange([mel, mel], "ear b m n -> b ear n m")).latent_dist.mode()
        return (rearrange(mean, "b c t m -> b (c m) t") - vae.latents_mean[:, None]) / vae.latents_std[:, None]

    def sound(self, z: Float[Tensor, "b c t"]) -> Float[Tensor, "b s"]:
        """T * 960 samples: the last 30 ms, which no latent holds, are silence."""
        vae = self.vae.on(z.device)
        mean = z * vae.latents_std[:, None] + vae.latents_mean[:, None]
        mel = vae.decode(rearrange(mean, "b (c m) t -> b c t m", c=VAE_CONFIG["latent_channels"])).sample
        audio = self.vocoder.on(z.device)(mel).mean(1).clamp(-1, 1)
        return F.pad(audio, (0, z.shape[2] * self.samples - audio.shape[1]))


def log_mel(audio: Float[Tensor, "b s"]) -> Float[Tensor, "b m n"]:
    """Log-mel frames of 24 kHz sound as the VAE has them of 16 kHz: a window sums 1.5 times as many samples."""
    return (MEL(audio) / RATIO).clamp(min=FLOOR).log()


def locate(source: str | Path, part: str, what: str) -> Path:
    """The folder of one network: the one given, or that part of the pipeline given.

    Raises:
        ValueError: there is none.
    """
    place = find(source, what)
    return place / part if (place / part).is_dir() else place


def load(cls: type, source: Path, wanted: dict[str, Any], device: torch.device) -> Any:
    """A network of diffusers' from a folder of its layout.

    Raises:
        ValueError: the folder is of another class, of another configuration than `wanted`, or lacks weights.
    """
    config = read_json(source / "config.json")
    name = cls.__name__
    if config.get("_class_name") != name:
        raise ValueError(f"{source / 'config.json'} is of {config.get('_class_name')}; {name} is needed")
    known = inspect.signature(cls).parameters
    config = {key: value.default for key, value in known.items()} | {k: x for k, x in config.items() if k in known}
    for key, value in wanted.items():
        if config[key] != value:
            raise ValueError(f"{source / 'config.json'} has {key} = {config[key]}; the codec needs {value}")
    with torch.device("meta"):
        network = cls(**config)
    fill(network, {key: tensor.to(device, torch.float32) for key, tensor in tensors(source)}, source, assign=True)
    return network


@lru_cache(maxsize=8)
def encoder_digest(source: Path, stamp: object) -> str:
    """Of what decides which latents a sound has; `stamp` changes with the files."""
    return digest(dict(tensors(source, lambda name: name.startswith(("encoder.", "latents_")))), FLOOR)
