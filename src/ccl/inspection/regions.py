"""What the tokens of a clip show and hold: the mouth, the person, the background; a voice, or silence.

In the talking world this is known: a mouth has a colour that nothing else has, a wall that of the clip's own record.
F pictures of H x W pixels, t_v latent frames of h x w tokens, t_a audio tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ccl.data.world.scene import MOUTH, wall
from ccl.grid import Grid
from ccl.media import Clip
from ccl.types import AV

MOUTH_SHARE = 0.02  # of a token's pixels: what a closed mouth covers of the token that holds it is 5 %
WALL_SHARE = 0.5  # of a token's pixels that is background
NEAR = 12  # of 255, in each colour
SILENT = 1e-3  # root mean square of a sound


def regions_of(clip: Clip, grid: Grid) -> AV[dict[str, np.ndarray]]:
    """Of each stream's tokens, by name, which are what; of pictures that are not the world's nothing is known."""
    assert clip.video is not None and clip.audio is not None
    known = "wall" in clip.meta
    video = video_regions(clip.video, clip.meta, grid) if known else {"all": np.ones(grid.s_v, bool)}
    return AV(video, audio_regions(clip.audio, grid))


def loudness(audio: Float[np.ndarray, " s"], grid: Grid) -> Float[np.ndarray, " t"]:
    """Root mean square of the samples of each audio token."""
    edges = np.round(np.arange(grid.t_a + 1) * grid.sample_rate / grid.latent_rate).astype(int).clip(max=len(audio))
    energy = np.append(0, np.cumsum(audio.astype(float) ** 2))
    return np.sqrt(np.diff(energy[edges]).clip(min=0) / np.maximum(np.diff(edges), 1))


def by_token(pixels: Float[np.ndarray, "f h w"] | Bool[np.ndarray, "f h w"], grid: Grid) -> np.ndarray:
    """Means over the pixels of each video token, (t_v, h, w): the first latent frame holds one picture."""
    size = grid.stride_space * grid.patch
    spots = pixels.reshape(len(pixels), grid.h, size, grid.w, size).mean((2, 4))
    later = spots[1:].reshape(grid.t_v - 1, grid.stride_time, grid.h, grid.w).mean(1)
    return np.concatenate([spots[:1], later])


def video_regions(video: UInt8[np.ndarray, "f h w 3"], meta: dict[str, Any], grid: Grid) -> dict[str, np.ndarray]:
    """Which video tokens, (t_v h w) in their order, show the mouth, the person besides, and the background."""
    colours = video.astype(np.int16)
    excess = np.minimum(colours[..., 0], colours[..., 2]) - colours[..., 1]
    mouth = by_token(excess > 0.15 * (min(MOUTH[0], MOUTH[2]) - MOUTH[1]), grid) > MOUTH_SHARE
    behind = wall(meta["wall"])
    flat = [np.abs(colours - colour).max(-1) < NEAR for colour in (behind, 0.72 * behind)]  # the wall, the floor
    background = (by_token(flat[0] | flat[1], grid) > WALL_SHARE) & ~mouth
    found = {"mouth": mouth, "person": ~mouth & ~background, "background": background}
    return {name: mask.reshape(-1) for name, mask in found.items()}


def audio_regions(audio: Float[np.ndarray, " s"], grid: Grid) -> dict[str, np.ndarray]:
    """Which audio tokens, (t_a,), hold sound, and which silence."""
    heard = loudness(audio, grid) > SILENT
    return {"voice": heard, "silence": ~heard}
