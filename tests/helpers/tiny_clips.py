"""Small clips for tests: a square that moves before a flat colour, and a tone with noise that comes and goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ccl.codecs.base import AudioCodec, VideoCodec
from ccl.data.sources import Source
from ccl.grid import Grid
from ccl.media import Clip, write_clip

TINY = Grid(frames=9, fps=25.0, height=16, width=16)


def tiny_clip(number: int = 0, grid: Grid = TINY, *, seconds: float | None = None) -> Clip:
    """A clip that differs for every number; `seconds` overrides the grid's length."""
    rng = np.random.default_rng(number)
    frames = grid.frames if seconds is None else round(seconds * grid.fps)
    samples = grid.samples if seconds is None else round(seconds * grid.sample_rate)
    video = np.empty((frames, grid.height, grid.width, 3), np.uint8)
    video[:] = rng.integers(60, 200, 3)
    side = grid.height // 4
    for t in range(frames):
        x = (number + t) % (grid.width - side)
        video[t, side : 2 * side, x : x + side] = 250 if number % 2 else 5
    time = np.arange(samples) / grid.sample_rate
    tone = np.sin(2 * np.pi * (300 + 37 * (number % 20)) * time) + 0.3 * rng.standard_normal(samples)
    audio = 0.3 * tone * (np.sin(2 * np.pi * 6 * time) > 0)
    return Clip(video, audio.astype(np.float32), grid.fps, grid.sample_rate, f"clip number {number}", f"clip{number}")


def tiny_sources(count: int, grid: Grid = TINY) -> list[Source]:
    return [Source(f"clip{number}", lambda number=number: tiny_clip(number, grid)) for number in range(count)]


def tiny_folder(folder: Path, count: int = 3, grid: Grid = TINY) -> Path:
    """mp4 files with their prompts beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        clip = tiny_clip(number, grid)
        write_clip(clip, folder / f"{clip.id}.mp4")
        (folder / f"{clip.id}.txt").write_text(clip.prompt + "\n")
    return folder


class FakeVideo(VideoCodec):
    """Means of blocks of 8 x 8 pixels, of every fourth picture."""

    channels, stride_time, stride_space = 3, 4, 8

    def encode(self, video):
        return torch.nn.functional.avg_pool3d(video[:, :, ::4], (1, 8, 8))

    def decode(self, z):
        return z

    @property
    def identity(self):
        return "fake-video-1"


class FakeAudio(AudioCodec):
    """The first 512 samples of each latent, taken as a mean."""

    channels, sample_rate, latent_rate = 1, 16_000, 31.25

    def encode(self, audio, length):
        return audio[:, : length * 512].reshape(len(audio), 1, length, 512).mean(-1)

    def decode(self, z):
        return z[:, 0]

    @property
    def identity(self):
        return "fake-audio-1"
