"""Stand for pretrained codecs that this version does not carry, so that the paper's configs resolve whole."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ccl.codecs.base import AudioCodec, VideoCodec


class AbsentVideo(VideoCodec):
    """Knows the shape of its latents, so that a model can be built; says what is missing where it would have to work.

    Args:
        name: of the codec that belongs here.
        channels: of its latents.
        stride_time: pictures a latent frame.
        stride_space: pixels a latent pixel.
    """

    absent = True

    def __init__(self, name: str, channels: int, stride_time: int, stride_space: int) -> None:
        super().__init__()
        self.name, self.channels = name, channels
        self.stride_time, self.stride_space = stride_time, stride_space

    def encode(self, video: Float[Tensor, "b 3 f hp wp"]) -> Float[Tensor, "b c t h w"]:
        raise ValueError(f"the video codec {self.name} is not part of this version of ccl")

    def decode(self, z: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 f hp wp"]:
        raise ValueError(f"the video codec {self.name} is not part of this version of ccl")

    @property
    def identity(self) -> str:
        return self.name


class AbsentAudio(AudioCodec):
    """Knows the shape of its latents, so that a model can be built; says what is missing where it would have to work.

    Args:
        name: of the codec that belongs here.
        channels: of its latents.
        sample_rate: Hz.
        latent_rate: latents a second.
    """

    absent = True

    def __init__(self, name: str, channels: int, sample_rate: int, latent_rate: float) -> None:
        super().__init__()
        self.name, self.channels = name, channels
        self.sample_rate, self.latent_rate = sample_rate, latent_rate

    def encode(self, audio: Float[Tensor, "b s"], length: int) -> Float[Tensor, "b c t"]:
        raise ValueError(f"the audio codec {self.name} is not part of this version of ccl")

    def decode(self, z: Float[Tensor, "b c t"]) -> Float[Tensor, "b s"]:
        raise ValueError(f"the audio codec {self.name} is not part of this version of ccl")

    @property
    def identity(self) -> str:
        return self.name
