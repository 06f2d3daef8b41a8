"""What a codec promises, whether it is a closed form or a pretrained VAE.

Latents are what the transformer sees: normalised to about unit variance, (B, C, T, ...), float32.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ccl import arguments
from ccl.grid import Grid
from ccl.types import AV
from ccl.weights.find import Absent


def check_statistics(mean: Tensor, std: Tensor, channels: int, source: object) -> None:
    """Refuse statistics that latents cannot be normalised by; some would be broadcast in silence.

    Args:
        mean: of each latent channel.
        std: standard deviation of each.
        channels: how many there are.
        source: names them in the message.

    Raises:
        ValueError: they are not one number a channel, not finite, or a deviation is not positive.
    """
    for name, values in (("mean", mean), ("std", std)):
        if tuple(values.shape) != (channels,):
            raise ValueError(f"{source}: the latents' {name} has shape {tuple(values.shape)}; {(channels,)} is needed")
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{source}: the latents' {name} holds NaN or infinity")
    if not bool((std > 0).all()):
        raise ValueError(f"{source}: the latents' std is {float(std.min()):g} in a channel; it must be positive")


class VideoCodec(nn.Module, ABC):
    """Causal video codec: the first latent frame holds one picture, each later one `stride_time`."""

    channels: int
    stride_time: int
    stride_space: int

    @abstractmethod
    def encode(self, video: Float[Tensor, "b 3 f hp wp"]) -> Float[Tensor, "b c t h w"]:
        """Pictures in [-1, 1] to latents. ValueError in words where frames are not stride_time * k + 1."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 f hp wp"]:
        """Latents to pictures, clamped to [-1, 1]."""

    def check_pictures(self, video: Tensor) -> None:
        """ValueError in words where `encode` cannot take them; frames left over would be dropped in silence."""
        arguments.tensor("video", video, "B", 3, "F", "H", "W")
        frames, height, width = video.shape[2:]
        if (frames - 1) % self.stride_time:
            raise ValueError(f"video has {frames} frames; the codec needs {self.stride_time}k + 1")
        if height % self.stride_space or width % self.stride_space:
            raise ValueError(f"video is {height} x {width}; the codec needs multiples of {self.stride_space} pixels")

    def check_latents(self, z: Tensor) -> None:
        """ValueError in words where `decode` cannot take them."""
        arguments.tensor("z", z, "B", self.channels, "T", "H", "W")

    def stream(self, z: Float[Tensor, "b c t h w"]) -> Iterator[Float[Tensor, "b 3 n hp wp"]]:
        """`decode` in pieces along time, in order, for one who writes them down as they come; all at once here."""
        yield self.decode(z)

    def unload(self) -> None:
        """Give back the memory of weights that can be loaded again; they are when next needed. Nothing here."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Names the latent space, as by a hash of the encoder's weights: latents of another identity are refused."""


class AudioCodec(nn.Module, ABC):
    """Waveform to latents at a fixed rate and back."""

    channels: int
    sample_rate: int
    latent_rate: float

    @abstractmethod
    def encode(self, audio: Float[Tensor, "b s"], length: int) -> Float[Tensor, "b c t"]:
        """Samples in [-1, 1], padded with silence or cut to exactly `length` latents."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "b c t"]) -> Float[Tensor, "b s"]:
        """Latents to samples in [-1, 1]; deterministic."""

    def check_sound(self, audio: Tensor, length: int) -> None:
        """ValueError in words where `encode` cannot take it, or make so many latents."""
        arguments.tensor("audio", audio, "B", "S")
        arguments.number("length", length, 1, whole=True)

    def check_latents(self, z: Tensor) -> None:
        """ValueError in words where `decode` cannot take them."""
        arguments.tensor("z", z, "B", self.channels, "T")

    def unload(self) -> None:
        """As of the video codec."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Names the latent space, as of the video codec."""


class Codec(nn.Module):
    """The two codecs of a model.

    Args:
        video: of the pictures.
        audio: of the sound.
    """

    def __init__(self, video: VideoCodec, audio: AudioCodec) -> None:
        super().__init__()
        arguments.instance("video", video, VideoCodec, "a VideoCodec")
        arguments.instance("audio", audio, AudioCodec, "an AudioCodec")
        self.video, self.audio = video, audio

    def check(self, grid: Grid, channels: AV[int | None]) -> None:
        """Refuse a grid or a network of other latents than the codecs'; a rate that differs would only sound wrong.

        Args:
            grid: of the clips.
            channels: of the network's latents; None for a stream that it has not.

        Raises:
            ValueError: one sentence that names the first setting that differs.
        """
        video, audio = self.video, self.audio
        settings = {
            "video": (
                ("channels", channels.video, video.channels),
                ("grid.stride_time", grid.stride_time, video.stride_time),
                ("grid.stride_space", grid.stride_space, video.stride_space),
            ),
            "audio": (
                ("channels", channels.audio, audio.channels),
                ("grid.sample_rate", grid.sample_rate, audio.sample_rate),
                ("grid.latent_rate", grid.latent_rate, audio.latent_rate),
            ),
        }
        for stream, rows in settings.items():
            for name, ours, theirs in rows:
                if getattr(channels, stream) is None or ours is None or math.isclose(ours, theirs, rel_tol=1e-3):
                    continue  # a config may round 44100 / 1024
                own = (
                    f"the network's {stream} stream has {ours:g} channels"
                    if name == "channels"
                    else f"{name} is {ours:g}"
                )
                raise ValueError(f"{own}, and the {stream} codec has {theirs:g}; they must be equal")

    def encode(self, media: AV[Tensor | None], grid: Grid) -> AV[Tensor | None]:
        """(B, 3, F, H, W) in [-1, 1] and (B, S) to latents cut to the grid's t_v and t_a."""
        arguments.instance("media", media, AV, "AV(video, audio), None for no stream")
        return AV(
            None if media.video is None else self.video.encode(media.video),
            None if media.audio is None else self.audio.encode(media.audio, grid.t_a),
        )

    def decode(self, z: AV[Tensor | None]) -> AV[Tensor | None]:
        """Latents to media in [-1, 1]."""
        arguments.instance("z", z, AV, "AV(video, audio), None for no stream")
        return AV(
            None if z.video is None else self.video.decode(z.video),
            None if z.audio is None else self.audio.decode(z.audio),
        )

    def unload(self) -> None:
        """Give back the memory of both codecs' weights, as far as they can be loaded again."""
        self.video.unload()
        self.audio.unload()

    @property
    def identity(self) -> str:
        return f"{self.video.identity}+{self.audio.identity}"

    @property
    def known(self) -> AV[str | None]:
        """Identity of each; None where its weights are not on this machine, as they need not be to read latents."""

        def one(codec: VideoCodec | AudioCodec) -> str | None:
            try:
                return codec.identity
            except Absent:
                return None

        return AV(one(self.video), one(self.audio))
