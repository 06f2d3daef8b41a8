"""Every length of a clip, derived once from its frames, rate and size. The only length arithmetic in the project.

t_v latent frames of h x w video tokens; t_a audio tokens; c = floor(t_a / t_v) audio tokens a frame (CCL Sec. 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

PICTURES, SOUND = 8 * 2**30, 2**30  # bytes that those of one clip may take


@dataclass(frozen=True)
class Grid:
    """The shape of a clip, in media and in tokens.

    Args:
        frames: pictures of a clip; a causal codec of stride 4 needs 4k + 1.
        fps: pictures a second.
        height: pixels.
        width: pixels.
        sample_rate: of the waveform, Hz.
        latent_rate: audio latents a second (MMAudio 16 kHz and the embedded codec: 31.25).
        stride_time: pictures a latent frame, after the first, which holds one.
        stride_space: pixels a latent pixel, each way.
        patch: latent pixels a token, each way.
        audio_latents: t_a where it is not floor(seconds latent_rate), as Ovi's 314 for 241 frames at 24 fps; it holds
            for a clip of this length alone. The sound stays as long as the pictures: latents beyond it hold silence.

    Raises:
        ValueError: in words, where the codec or the patches do not divide the clip, the clip has fewer audio than video
            tokens (undefined in the paper), `audio_latents` is a latent frame or more away from the clip's length, or
            the clip is larger than PICTURES and SOUND allow.
    """

    frames: int = 77
    fps: float = 25.0
    height: int = 48
    width: int = 48
    sample_rate: int = 16_000
    latent_rate: float = 31.25
    stride_time: int = 4
    stride_space: int = 8
    patch: int = 2
    audio_latents: int | None = None

    def __post_init__(self) -> None:
        for name in ("sample_rate", "stride_time", "stride_space", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"grid.{name} is {getattr(self, name)}; it must be at least 1")
        if self.frames < 1 or (self.frames - 1) % self.stride_time:
            raise ValueError(f"grid.frames is {self.frames}; the video codec needs {self.stride_time}k + 1 frames")
        if not 0 < self.fps < inf:
            raise ValueError(f"grid.fps is {self.fps}; it must be a positive number")
        if not 0 < self.latent_rate <= self.sample_rate:
            raise ValueError(
                f"grid.latent_rate is {self.latent_rate}; it must be positive, and no more than the sample_rate of "
                f"{self.sample_rate}"
            )
        step = self.stride_space * self.patch
        for name, size in (("height", self.height), ("width", self.width)):
            if size <= 0 or size % step:
                raise ValueError(f"grid.{name} is {size}; it must be a multiple of {step} pixels")
        if 3 * self.frames * self.height * self.width > PICTURES:
            raise ValueError(
                f"grid.frames is {self.frames}, of {self.height} x {self.width} pixels; a clip's pictures may take "
                f"{PICTURES / 2**30:g} GB"
            )
        if 4 * self.seconds * self.sample_rate > SOUND:
            raise ValueError(
                f"grid.fps is {self.fps}, so that {self.frames} frames last {self.seconds:.3g} s; a clip's sound at "
                f"{self.sample_rate} samples a second may take {SOUND / 2**30:g} GB"
            )
        exact = self.seconds * self.latent_rate
        if self.audio_latents is not None and abs(self.audio_latents - exact) > max(1, exact / self.t_v):
            raise ValueError(
                f"grid.audio_latents is {self.audio_latents}; {self.frames} frames at {self.fps:g} fps are {exact:.2f} "
                f"at {self.latent_rate:g} a second, and both streams must be of one length"
            )
        if self.t_a < self.t_v:
            raise ValueError(
                f"a clip of {self.frames} frames at {self.fps} fps has {self.t_a} audio tokens for {self.t_v} latent "
                "frames; temporally aligned windows need at least one audio token a frame"
            )

    def resized(self, **changes: Any) -> Grid:
        """The grid of clips of another length or size; a count of audio latents that was given goes with the length."""
        other = replace(self, **{"audio_latents": None, **changes})
        same = (other.frames, other.fps, other.latent_rate) == (self.frames, self.fps, self.latent_rate)
        return other if "audio_latents" in changes or not same else replace(other, audio_latents=self.audio_latents)

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def t_v(self) -> int:
        return 1 + (self.frames - 1) // self.stride_time

    @property
    def t_a(self) -> int:
        if self.audio_latents is not None:
            return self.audio_latents
        return self.latents_of(self.frames / self.fps)

    def latents_of(self, seconds: float) -> int:
        """Audio latents that lie whole within so many seconds."""
        # The small constant keeps an exact product (121 / 24 * 24) from being floored one too low.
        return int(seconds * self.latent_rate + 1e-9)

    def beginning(self, seconds: float) -> tuple[int, int]:
        """Latent frames and audio latents that lie whole within the first seconds; one of each is always left over."""
        pictures = int(seconds * self.fps + 1e-9)
        frames = 1 + (pictures - 1) // self.stride_time if pictures else 0  # the first holds one picture
        return min(frames, self.t_v - 1), min(self.latents_of(seconds), self.t_a - 1)

    def ending(self, seconds: float) -> tuple[int, int]:
        """Latent frames and audio latents that lie whole within the last seconds; one of each is always left over."""
        frames = int(seconds * self.fps + 1e-9) // self.stride_time
        latents = self.t_a - ceil((self.seconds - seconds) * self.latent_rate - 1e-9)
        return min(frames, self.t_v - 1), min(max(latents, 0), self.t_a - 1)

    @property
    def latent_height(self) -> int:
        return self.height // self.stride_space

    @property
    def latent_width(self) -> int:
        return self.width // self.stride_space

    @property
    def h(self) -> int:
        return self.latent_height // self.patch

    @property
    def w(self) -> int:
        return self.latent_width // self.patch

    @property
    def s_v(self) -> int:
        """Video tokens of a clip."""
        return self.t_v * self.h * self.w

    @property
    def c(self) -> int:
        """Audio tokens strictly aligned with one latent frame."""
        return self.t_a // self.t_v

    @property
    def samples(self) -> int:
        """Waveform samples of a clip."""
        return self.samples_of(self.frames)

    def samples_of(self, pictures: int) -> int:
        """Waveform samples while so many pictures are shown."""
        return round(pictures / self.fps * self.sample_rate)
