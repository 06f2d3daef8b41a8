"""Clips as a page shows them: what a browser can decode of each, how loud it is when, how far its mouth is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float
from PIL import Image

from ccl.evaluation.metrics.mouth import Mouth
from ccl.evaluation.store import feature_of
from ccl.evaluation.tables.results import Results
from ccl.files import sha256, sweep
from ccl.media import FFMPEG, Clip, Look, MediaError, look, read_natural, resample, write_clip

CONVERTED = "report_clips"  # folder beside the page, of the clips that no browser shows as they are
LARGEST = 720  # pixels of the longer side of what is converted: a page shows none larger
NAMED = 32  # digits of the sum that names one
RATE, BITS = 48_000, 128_000  # samples and bits a second of its sound
Key = tuple[str, str]  # method, id
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Shown:
    """A clip of the page.

    Args:
        path: of the file that is shown: the clip itself, or what it was converted to.
        look: at the clip itself; None where nothing can be read of it, as `fault` says.
        fault: why it cannot be read, or not be converted.
        mouth: how far its mouth is open over its pictures, where that was measured.
    """

    path: Path
    look: Look | None = None
    fault: str = ""
    mouth: Float[np.ndarray, " t"] | None = None


def shown(results: Results, folder: Path, progress: Progress | None = None) -> dict[Key, Shown]:
    """The clips of the samples that are files, by (method, id); what browsers do not show is converted.

    Args:
        results: whose clips.
        folder: of the page, where the features of a scoring lie too.
        progress: called with (clips done, of how many, a clip's file).
    """
    known = {(method, row.id) for method in results.methods for row in results.test}
    paths = {key: path for key, path in results.clips.items() if key in known and path.is_file()}
    made: dict[Key, Shown] = {}
    for key, path in paths.items():
        if progress is not None:
            progress(len(made), len(paths), path.name)
        made[key] = one(path, folder / CONVERTED, opening(results, key, folder))
    kept = {clip.path for clip in made.values()}
    for old in (folder / CONVERTED).glob(f"{'?' * NAMED}.mp4"):
        if old not in kept and set(old.stem) <= set("0123456789abcdef"):  # of clips that have changed since
            old.unlink()
    return made


def one(path: Path, folder: Path, mouth: Float[np.ndarray, " t"] | None) -> Shown:
    """A clip, converted into a folder where that is needed."""
    try:
        found = look(path)
    except MediaError as error:
        return Shown(path, fault=error.reason)
    if not found.strange:
        return Shown(path, found, mouth=mouth)
    try:
        return Shown(converted(path, folder), found, mouth=mouth)
    except MediaError as error:
        return Shown(path, found, fault=error.reason, mouth=mouth)


def converted(path: Path, folder: Path) -> Path:
    """The same in h264 and AAC, no larger than a page shows it, made once for the bytes of a file.

    Raises:
        MediaError: it cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{sha256(path)[:NAMED]}.mp4"
    if not target.is_file():
        sweep(folder)
        clip, _ = read_natural(path)
        write_clip(for_page(clip), target, crf=18, audio_bitrate=BITS)
    return target


def for_page(clip: Clip) -> Clip:
    """Pictures of even sides within LARGEST, sound at RATE."""
    video, audio = clip.video, clip.audio
    if video is not None:
        height, width = video.shape[1:3]
        scale = min(1.0, LARGEST / max(height, width))
        size = tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))
        if size != (width, height):
            video = np.stack([resized(picture, cast("tuple[int, int]", size)) for picture in video])
    if audio is not None:
        audio = resample(audio, clip.sample_rate, RATE, FFMPEG)
    return replace(clip, video=video, audio=audio, sample_rate=RATE)


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture at (width, height)."""
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def opening(results: Results, key: Key, folder: Path) -> Float[np.ndarray, " t"] | None:
    """How far a clip's mouth is open, of which `mouth` keeps the curve; None where that was not measured."""
    method, id = key
    if (method, Mouth.name) not in results.values:
        return None
    pair = feature_of(folder, Mouth.name, method, id)
    return None if pair is None or pair.ndim != 2 or not pair.size else pair[0]


def strange(clips: Mapping[Key, Shown]) -> dict[str, int]:
    """How many clips were converted, by what browsers do not show of them."""
    found: dict[str, int] = {}
    for clip in clips.values():
        if clip.look and clip.look.strange and not clip.fault:
            found[clip.look.strange] = found.get(clip.look.strange, 0) + 1
    return found
