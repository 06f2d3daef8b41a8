"""MMAudio's mel VAE and its BigVGAN vocoder, at 16 kHz (what Ovi uses) and 44.1 kHz (Cheng et al. 2024).

A latent is two log-mel frames, so 512 samples at 16 kHz (31.25 a second, 20 channels) and 1024 at 44.1 kHz (43.07, 40).
Networks are diffusers' `MMAudioVAE` and `MMAudioVocoder`; the front end and the reading of the authors' files are here.

B clips, S samples, M mel bands, N mel frames, C channels, T latents.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ccl.codecs.frozen_audio import FrozenAudioCodec
from ccl.codecs.mel import MelMagnitude
from ccl.weights.fill import fill
from ccl.weights.find import find
from ccl.weights.read import digest, stamp, tensors

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_mmaudio import MMAudioAutoencoder
    from diffusers.models.autoencoders.mmaudio_vocoder import MMAudioVocoder

VAE, VOCODER = "MMAudio's mel VAE", "MMAudio's vocoder"  # as messages call them
EPS = 1e-4  # of EDM2's weight normalisation
FLOOR = 1e-5  # mel magnitudes are clamped to it before the logarithm
FRAMES = 2  # mel frames a latent
UNIT = 0.01  # how far from 1 the norm of a fused filter may lie
FUSED, RAW = 0.95, 0.5  # shares of filters so near 1: at least in a fused file, at most in a raw one (27 % was met)
MULTIPLIERS, LAYERS = (1, 2, 4), 2  # widths of the VAE's levels, residual blocks in each


@dataclass(frozen=True)
class Variant:
    """What the two published codecs differ in.

    Args:
        mel: the front end.
        log10: the logarithm of the mel magnitudes; natural if not.
        channels: of a latent.
        rates: upsampling of the vocoder's stages; their product is the front end's hop.
        bias: whether the vocoder's last layer has one and ends in tanh (BigVGAN v1), or has none and is clamped (v2).
    """

    mel: MelMagnitude
    log10: bool
    channels: int
    rates: tuple[int, ...]
    bias: bool

    def log_mel(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b m n"]:
        """Log-mel frames, S // hop of them."""
        magnitude = self.mel(audio.clamp(-1, 1)).clamp(min=FLOOR)
        return magnitude.log10() if self.log10 else magnitude.log()


def front_end(sample_rate: int, n_fft: int, hop: int, bands: int) -> MelMagnitude:
    return MelMagnitude(sample_rate, n_fft, hop, bands, side=(n_fft - hop) // 2, power_floor=1e-9)


VARIANTS = {
    "16k": Variant(front_end(16_000, 1024, 256, 80), True, 20, (4, 4, 2, 2, 2, 2), True),
    "44k": Variant(front_end(44_100, 2048, 512, 128), False, 40, (8, 4, 2, 2, 2, 2), False),
}


class MMAudio(FrozenAudioCodec):
    """The codec of MMAudio: mean of the VAE's posterior, and a waveform through BigVGAN; always in float32.

    Each file may be the authors' (`v1-16.pth` and `best_netG.pt`; `v1-44.pth` and `bigvgan_generator.pt`) or a folder
    as diffusers saves one. Neither is looked at before it is needed, so that a model can be built where they are not.

    Args:
        variant: sample rate of the codec.
        vae: file or folder of the mel VAE, or a name of `ccl weights list`.
        vocoder: the same of the vocoder; None for a codec that only encodes.
        scale: what latents are multiplied by, to bring them near unit variance. The files hold no such number. Ovi
            trains on 16k latents as they are, Kandinsky 6 on those of 44k times 0.417; MMAudio's own generator
            normalises each channel by statistics in its own checkpoint. Another scale is another codec.
        fused: whether the VAE's filters have been normalised already, as diffusers has them and the authors' files have
            not; None looks at their norms (see `fused`).

    Raises:
        ValueError: for a variant there is not, or a scale that is not positive; from the methods, where a file is
            absent or not what it should be, or there is no vocoder to decode with.
    """

    def __init__(
        self,
        variant: Literal["16k", "44k"],
        vae: str | Path,
        vocoder: str | Path | None = None,
        scale: float = 1.0,
        fused: bool | None = None,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"there is no MMAudio codec '{variant}'; there are {' and '.join(VARIANTS)}")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale is {scale:g}; latents are multiplied by a positive number")
        super().__init__(vae, vocoder)
        self.variant, self.scale, self.fused = variant, scale, fused
        self.layout = VARIANTS[variant]
        self.samples = FRAMES * self.layout.mel.hop  # a latent
        self.channels, self.sample_rate = self.layout.channels, self.layout.mel.sample_rate
        self.latent_rate = self.sample_rate / self.samples

    @property
    def identity(self) -> str:
        """Of the encoder's weights as they are stored, so the same weights raw and fused count as two codecs."""
        source, layout = find(self.vae_source, VAE), self.layout
        settings = (*astuple(layout.mel), layout.log10, FLOOR, self.scale)
        return f"mmaudio-{self.variant}-{encoder_digest(source, settings, self.fused, stamp(source))}"

    def load_vae(self, device: torch.device) -> MMAudioAutoencoder:
        source = find(self.vae_source, VAE)
        return mel_vae(read_vae(source, device), self.layout, source, fused=self.fused)

    def load_vocoder(self, source: str | Path, device: torch.device) -> MMAudioVocoder:
        place = find(source, VOCODER)
        return bigvgan(read_vocoder(place, device), self.layout, place)

    def latents(self, audio: Float[Tensor, "b s"], length: int) -> Float[Tensor, "b c t"]:
        moments = self.vae.on(audio.device).encode(self.layout.log_mel(audio))
        return moments[:, : self.channels] * self.scale  # the other half is the log-variance

    def sound(self, z: Float[Tensor, "b c t"]) -> Float[Tensor, "b s"]:
        mel = self.vae.on(z.device).decode(z / self.scale)
        return self.vocoder.on(z.device)(mel, return_dict=False)[0][:, 0]


# Networks


def mel_vae(
    state: dict[str, Tensor], layout: Variant, source: Path, *, fused: bool | None = None
) -> MMAudioAutoencoder:
    """The VAE with these weights, its filters fused; its width is what they say.

    Args:
        state: the authors' names.
        layout: variant.
        source: names the weights in errors.
        fused: as of MMAudio.

    Raises:
        ValueError: where they are another variant's, or not those of such a VAE; where its mel statistics are not such.
    """
    from diffusers.models.autoencoders.autoencoder_mmaudio import MMAudioAutoencoder

    width, bands, _ = shape(state, "encoder.conv_in.weight", source)
    channels = shape(state, "encoder.conv_out.weight", source)[0] // 2
    if (bands, channels) != (layout.mel.bands, layout.channels):
        raise ValueError(
            f"{source} has {bands} mel bands and {channels} channels; "
            f"the variant has {layout.mel.bands} and {layout.channels}"
        )
    with torch.device("meta"):
        network = MMAudioAutoencoder(bands, channels, width, MULTIPLIERS, LAYERS)
    done = is_fused(state, source) if fused is None else fused
    fill(network, state if done else state | {name: fuse(x) for name, x in filters(state).items()}, source, assign=True)
    if not bool((state["data_std"] > 0).all()):
        raise ValueError(f"{source}: data_std, by which mel bands are divided, is not positive in all of them")
    return network


def bigvgan(state: dict[str, Tensor], layout: Variant, source: Path) -> MMAudioVocoder:
    """The vocoder with these weights; its width is what they say.

    Raises:
        ValueError: where they are another variant's, or not those of such a vocoder.
    """
    from diffusers.models.autoencoders.mmaudio_vocoder import MMAudioVocoder

    width, bands, _ = shape(state, "conv_pre.weight", source)
    last = shape(state, "conv_post.weight", source)[1]
    bias = "conv_post.bias" in state
    if (bands, bias) != (layout.mel.bands, layout.bias):
        kind = {True: "BigVGAN v1 (a bias in conv_post)", False: "BigVGAN v2 (no bias in conv_post)"}
        raise ValueError(
            f"{source} is {kind[bias]} for {bands} mel bands; the variant needs {kind[layout.bias]} for "
            f"{layout.mel.bands}"
        )
    kernels = tuple(2 * rate for rate in layout.rates)
    with torch.device("meta"):
        network = MMAudioVocoder(bands, width, layout.rates, kernels)
        if bias:
            network.conv_post = TanhConv(last, 1, 7, padding=3)
    fill(network, state, source, assign=True)
    return network


class TanhConv(nn.Conv1d):
    """Last layer of BigVGAN v1. diffusers' vocoder, which is v2, clamps what follows, and tanh passes unchanged."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).tanh()


# Files


def read_vae(source: Path, device: torch.device) -> dict[str, Tensor]:
    """The VAE's tensors under the authors' names; diffusers has them below `vae.`, with a front end that we do not use.

    Raises:
        ValueError: as of `tensors`.
    """
    state = {name.removeprefix("vae."): x for name, x in tensors(source) if not name.startswith("mel_converter.")}
    return {name: tensor.to(device, torch.float32) for name, tensor in state.items()}


@lru_cache(maxsize=8)
def encoder_digest(source: Path, settings: tuple[Any, ...], fused: bool | None, stamp: object) -> str:
    """Of what decides which latents a sound has; `stamp` changes with the file."""
    names = ("encoder.", "data_")
    state = {k: x for k, x in tensors(source, lambda name: name.removeprefix("vae.").startswith(names))}
    state = {name.removeprefix("vae."): tensor for name, tensor in state.items()}
    # What is said of the filters matters where it is not what they show.
    said = () if fused is None or fused == seems_fused(state)[0] else (f"fused={fused}",)
    return digest(state, *settings, *said)


def read_vocoder(source: Path, device: torch.device) -> dict[str, Tensor]:
    """The vocoder's tensors, its weight normalisation multiplied out.

    Both spellings of torch's are known, `weight_g` and `weight_v` as well as `parametrizations.weight.original0` and
    `original1`, and weights that have none left.

    Raises:
        ValueError: as of `tensors`; where one of a pair is missing.
    """
    state = {}
    for name, tensor in tensors(source):
        for i, half in enumerate("gv"):
            name = name.replace(f".parametrizations.weight.original{i}", f".weight_{half}")
        state[name] = tensor.to(device, torch.float32)
    for layer in sorted({name[:-2] for name in state if name.endswith((".weight_g", ".weight_v"))}):
        lacking = {f"{layer}_g", f"{layer}_v"} - state.keys()
        if lacking:
            raise ValueError(f"{source} lacks {lacking.pop()}, one half of a normalised weight")
        state[layer] = torch._weight_norm(state.pop(f"{layer}_v"), state.pop(f"{layer}_g"), 0)
    return state


def filters(state: dict[str, Tensor]) -> dict[str, Float[Tensor, "o i k"]]:
    """Weights of the convolutions, all of which EDM2 normalises."""
    return {name: tensor for name, tensor in state.items() if tensor.ndim == 3 and name.endswith(".weight")}


def is_fused(state: dict[str, Tensor], source: Path) -> bool:
    """Whether EDM2's normalisation has been multiplied into the filters already.

    The authors publish raw filters and normalise them when they load, always; diffusers' are fused. What a file holds
    shows in the norms of its filters, which fusing makes 1, as neither its name nor its layout tell. To fuse once more
    would not be noticed: it shrinks a filter of 1,152 weights by 0.3 %, at each of some fifty layers; nor would raw
    filters that are taken for fused.

    Raises:
        ValueError: where the norms are those of neither.
    """
    done, share, layers = seems_fused(state)
    if done is None:
        some = f", and all in {len(layers)} of {len(filters(state))} layers (as {min(layers)})" if layers else ""
        raise ValueError(
            f"{source} is neither raw nor fused by EDM2's normalisation: {share:.0%} of its filters have norm 1{some}; "
            "say which it is, `fused: true` or `fused: false`, or take the authors' file"
        )
    return done


def seems_fused(state: dict[str, Tensor]) -> tuple[bool | None, float, list[str]]:
    """What the norms show, None if neither; the share of filters with norm 1; and the layers in which all have it."""
    near = {name: (x.float().flatten(1).norm(dim=1) - 1).abs() < UNIT for name, x in filters(state).items()}
    share = float(torch.cat(list(near.values())).float().mean()) if near else 0.0
    whole = [name for name, hits in near.items() if bool(hits.all())]
    # A filter may have died in training (norm 0, raw or fused); half a layer of them is something else.
    if share >= FUSED and all(float(hits.float().mean()) > RAW for hits in near.values()):
        return True, share, whole
    return (False if share <= RAW and not whole else None), share, whole


def fuse(weight: Float[Tensor, "o i k"]) -> Float[Tensor, "o i k"]:
    """Filters of norm 1 but for EPS: what EDM2's magnitude-preserving layer makes of raw ones (Karras et al. 2024)."""
    weight = weight.float()
    rms = weight.square().mean((1, 2), keepdim=True).sqrt()
    return weight / (EPS + rms) / math.sqrt(weight[0].numel())


def shape(state: dict[str, Tensor], name: str, source: Path) -> tuple[int, ...]:
    """Of a layer's filters, which tell what the file is."""
    if name not in state or state[name].ndim != 3:
        raise ValueError(f"{source} has no convolution {name}, so it is not the part of MMAudio that belongs here")
    return tuple(state[name].shape)
