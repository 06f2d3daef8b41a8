"""Wan's causal video VAE, as diffusers has it (AutoencoderKLWan), between pictures and normalised latents.

Latents are (mean - latents_mean) / latents_std, the posterior's mean without noise: what Wan's transformers see. The
first latent frame holds one picture, each later one `stride_time`. The network decodes one latent frame after another
and carries two frames of features between them, so a video of any length is decoded in the memory of one piece.

B clips, F pictures, T latent frames, H x W latent pixels, C channels.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ccl.codecs.base import VideoCodec, check_statistics
from ccl.weights.fill import fill
from ccl.weights.find import find
from ccl.weights.frozen import Frozen, Precision
from ccl.weights.read import digest, read_json, stamp, tensors

WHAT = "Wan's video VAE"
ORIGINAL = "Wan2.1_VAE.pth"
ENCODER = ("encoder.", "quant_conv.")  # what decides which latents a video has; in diffusers' names
# ... and what of the config does, beyond the shapes of those weights.
SETTINGS = ("dim_mult", "temperal_downsample", "is_residual", "patch_size", "latents_mean", "latents_std")


class WanVideo(VideoCodec):
    """Wan2.1's VAE (16 channels, 4 x 8 x 8), or Wan2.2's (48 channels, 4 x 16 x 16) by its own config.

    Nothing is read before the first clip, so a model can be built where the weights are not. The network is held
    outside the module tree, goes to the device of what it is given, and is no part of a checkpoint.

    Args:
        path: a folder in diffusers' layout (the VAE's own, or a pipeline's with vae/ in it), a folder of Wan's own
            release or its Wan2.1_VAE.pth, a name of `ccl weights list`, or OWNER/REPO of the hub.
        channels: of its latents.
        stride_time: pictures a latent frame.
        stride_space: pixels a latent pixel.
        dtype: the network computes in; latents and pictures are float32 all the same.
        clips: that go through the network together; memory grows with them.
        tiling: cut pictures larger than 256 pixels into overlapping tiles and blend them. Saves memory and is NOT
            exact: both latents and pictures differ from those of the whole, and pictures come all at once.

    Raises:
        ValueError: `clips`, `channels` or a stride is not positive. When first used: there are no such weights, or not
            of these channels and strides, or the statistics of the latents are none; one sentence.
    """

    sources = ("path",)

    def __init__(
        self,
        path: str | Path,
        channels: int = 16,
        stride_time: int = 4,
        stride_space: int = 8,
        dtype: Precision = "float32",
        clips: int = 1,
        tiling: bool = False,
    ) -> None:
        super().__init__()
        for name, number in (("channels", channels), ("stride_time", stride_time), ("stride_space", stride_space)):
            if number < 1:
                raise ValueError(f"the video codec's {name} is {number}; it must be positive")
        if clips < 1:
            raise ValueError(f"the video codec's clips is {clips}; at least one goes through the network at a time")
        self.path, self.clips, self.tiling = path, clips, tiling
        self.channels, self.stride_time, self.stride_space = channels, stride_time, stride_space
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.network: Frozen[Any] = Frozen(self._load)

    @property
    def identity(self) -> str:
        """Hash of the encoder and its normalisation: the same in every layout and precision of one VAE's file."""
        source, config = locate(self.path)
        self._check(config, source)
        settings = {key: config[key] for key in SETTINGS}
        return f"wan-video-{self.channels}-{_digest(source, stamp(source), json.dumps(settings))}"

    def unload(self) -> None:
        self.network.unload()

    @torch.no_grad()
    def encode(self, video: Float[Tensor, "b 3 f hp wp"]) -> Float[Tensor, "b c t h w"]:
        self.check_pictures(video)
        net = self.network.on(video.device)
        with torch.autocast(video.device.type, enabled=False):
            z = [net.encode(x.to(self.dtype)).latent_dist.mode().float() for x in video.split(self.clips)]
            mean, std = self._statistics(net, video.device)
            return (torch.cat(z) - mean) / std

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 f hp wp"]:
        self.check_latents(z)
        return torch.cat([torch.cat(list(self.stream(x)), dim=2) for x in z.split(self.clips)])

    @torch.no_grad()
    def stream(self, z: Float[Tensor, "b c t h w"]) -> Iterator[Float[Tensor, "b 3 n hp wp"]]:
        """Pictures in the order of time: one, then `stride_time` for each later latent frame.

        The network's state between two pieces belongs to this iterator, so several may be read in turn.
        """
        self.check_latents(z)
        net = self.network.on(z.device)
        mean, std = self._statistics(net, z.device)
        if self.tiling:
            with torch.autocast(z.device.type, enabled=False):
                pictures = net.decode((z.float() * std + mean).to(self.dtype)).sample.float()
            yield pictures
            return
        features = _features(net.decoder)
        for i, frame in enumerate(z.split(1, dim=2)):
            yield self._piece(net, (frame.float() * std + mean).to(self.dtype), features, first=i == 0)

    def _piece(self, net: Any, z: Tensor, features: list[Any], *, first: bool) -> Tensor:
        """Pictures of one latent frame, as in AutoencoderKLWan._decode; `features` is carried on in place."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        with torch.autocast(z.device.type, enabled=False):
            x = net.decoder(net.post_quant_conv(z), feat_cache=features, feat_idx=[0], first_chunk=first)
            if net.config.patch_size is not None:
                x = unpatchify(x, patch_size=net.config.patch_size)
            return x.float().clamp(-1, 1)

    def _statistics(self, net: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each latent channel, (C, 1, 1, 1)."""
        mean, std = (
            torch.tensor(values, device=device)[:, None, None, None]
            for values in (net.config.latents_mean, net.config.latents_std)
        )
        return mean, std

    def _load(self, device: torch.device) -> Any:
        source, config = locate(self.path)
        self._check(config, source)
        net = blank(config)
        state = {name: tensor.to(device, self.dtype) for name, tensor in read_state(source).items()}
        fill(net, state, source, assign=True)
        if self.tiling:
            net.enable_tiling()
        return net

    def _check(self, config: Mapping[str, Any], source: Path) -> None:
        ours = (self.channels, self.stride_time, self.stride_space)
        theirs = (config["z_dim"], config["scale_factor_temporal"], config["scale_factor_spatial"])
        if ours != theirs:
            raise ValueError(
                f"{source} has latents of {theirs[0]} channels and strides {theirs[1]} x {theirs[2]} x {theirs[2]}; "
                f"the video codec is set to {ours[0]} channels and {ours[1]} x {ours[2]} x {ours[2]}"
            )
        try:
            mean, std = (torch.tensor(config[name], dtype=torch.float32) for name in ("latents_mean", "latents_std"))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{source}: the latents' mean and std are no lists of numbers") from error
        check_statistics(mean, std, self.channels, source)


def locate(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Where the weights of a VAE lie, a folder of diffusers' layout or a single file, and its whole config.

    Raises:
        ValueError: there are none, or they are of another network.
    """
    from diffusers import AutoencoderKLWan

    known = inspect.signature(AutoencoderKLWan).parameters
    defaults = {name: parameter.default for name, parameter in known.items()}  # Wan2.1's
    place = find(path, WHAT)
    configs = (folder / "config.json" for folder in (place, place / "vae"))
    file = next((config for config in configs if config.is_file()), None)
    # Wan's own release has a config.json too, of its transformer, beside the VAE's file.
    config = read_json(file) if file else {}
    if file and config.get("_class_name") == "AutoencoderKLWan":
        return file.parent, {**defaults, **{key: value for key, value in config.items() if key in known}}
    single = place / ORIGINAL if place.is_dir() else place
    if single.is_file():
        return single, {**defaults, **_sizes(single)}
    if file:
        raise ValueError(
            f"{file} is of {config.get('_class_name', 'another network')}, not of {WHAT}, AutoencoderKLWan"
        )
    raise ValueError(f"{place} holds nothing of {WHAT}: no config.json, no vae/config.json, no {ORIGINAL}")


def read_state(source: Path) -> dict[str, Tensor]:
    """Weights in diffusers' names, from a folder of diffusers' layout or a file of Wan's."""
    state = dict(tensors(source))
    if source.is_dir() or "conv1.weight" not in state:
        return state
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    return convert_wan_vae_to_diffusers(state)


def _sizes(file: Path) -> dict[str, int]:
    """Width and channels of a VAE in one file of Wan's layout, which has no config."""
    shapes = {name: tensor.shape for name, tensor in tensors(file)}
    if any(name.startswith("encoder.downsamples.0.downsamples.") for name in shapes):
        raise ValueError(f"{file} is Wan2.2's VAE in Wan's own layout; give the folder that diffusers has of it")
    try:
        return {"base_dim": shapes["encoder.conv1.weight"][0], "z_dim": shapes["conv2.weight"][0]}
    except KeyError as error:
        raise ValueError(f"{file} is no VAE of Wan2.1's: it has no {error.args[0]}") from error


@lru_cache(maxsize=8)
def _digest(source: Path, stamp: tuple[tuple[str, int, int], ...], settings: str) -> str:
    """Of the encoder; read once for each state of the files in a process."""
    if source.is_dir():
        return digest(dict(tensors(source, lambda name: name.startswith(ENCODER))), settings)
    return digest({name: tensor for name, tensor in read_state(source).items() if name.startswith(ENCODER)}, settings)


def blank(config: Mapping[str, Any]) -> Any:
    """The network without memory for its weights."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        return AutoencoderKLWan(**config)


def _features(decoder: torch.nn.Module) -> list[Any]:
    """Room for what each causal convolution keeps of the last two frames."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return [None for part in decoder.modules() if isinstance(part, WanCausalConv3d)]
