"""Where clips come from: a source names a clip and knows how to make it; a folder of videos is a list of sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ccl.data.buckets import read_into_bucket
from ccl.data.caption_files import Caption, read_captions, sidecar_captions
from ccl.data.filters import cause
from ccl.grid import Grid
from ccl.media import Clip, MediaError, read_audio, read_clip
from ccl.spelling import counted
from ccl.types import AV

VIDEO = {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"}
# Sound alone makes no clip, unless nothing else is asked for or data are mixed, but is listed as skipped, not passed
# over in silence.
SOUND = {".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"}
MUTED = "mute by its caption"


@runtime_checkable
class Loadable(Protocol):
    """What a writer of shards takes: `Source`, or anything else with a name that can make its clip."""

    @property
    def id(self) -> str: ...

    def load(self) -> Clip: ...


@dataclass(frozen=True)
class Source:
    """Where a clip comes from.

    Args:
        id: names the clip; made safe for file names, and unique, when it is written.
        load: makes the clip; called once, perhaps in another process. A MediaError or OSError means: skip, with reason.
        fingerprint: what else the clip depends on (a file's size, a prompt); part of the shards' identity.
        voice: another sound of whoever speaks, at the clip's rate, (S,) float32; None where there is none.
    """

    id: str
    load: Callable[[], Clip]
    fingerprint: str = ""
    voice: Callable[[], Any] | None = None


@runtime_checkable
class Listener(Protocol):
    """Hears what is said; handed in, for it needs a network."""

    @property
    def version(self) -> str:
        """All that its words depend on, as a hash of its weights."""
        ...

    def prompt(self, clip: Clip) -> str:
        """A prompt of what is said in a clip, the words in double quotes; "" where nothing is."""
        ...


def folder_sources(
    folder: str | Path,
    captions: str | Path | None = None,
    *,
    grid: Grid | Sequence[Grid] | None = None,
    need_captions: bool = True,
    sound: bool = False,
    mixed: bool = False,
) -> list[Source]:
    """All media files in a folder and the folders in it, by name.

    Args:
        folder: of videos.
        captions: a .csv file with a header, or a .jsonl file, with `file` (in the folder) and `prompt`, and perhaps
            `voice`, a file of the folder in which whoever speaks says something else, and `mute`, whether its sound is
            none to learn from; without it a prompt is the text of `<name>.txt` beside the video.
        grid: what the clips are brought to; of several, the nearest that a clip fills.
        need_captions: whether a video without a caption, or with a blank one, is skipped by the writer, with the
            reason; else its prompt is empty.
        sound: read the sound alone.
        mixed: of a file that has one stream alone, or is mute by its caption, read that; else the writer skips it.

    Raises:
        ValueError: no folder, no media in it, captions are needed and no video has one; a bad line in the captions,
            with its number, or a caption beside a video that is not UTF-8.
    """
    folder = Path(folder)
    paths = media_files(folder)
    told = sidecar_captions(folder, paths) if captions is None else read_captions(captions, folder, paths)
    voices = {caption.voice for caption in told.values()}
    if need_captions and not any(caption.prompt for caption in told.values()):
        where = "no NAME.txt beside NAME.mp4 says anything" if captions is None else f"{captions} names none of them"
        raise ValueError(
            f"none of {counted(len(paths), 'clip')} in {folder} has a caption: {where}; caption them, or keep them "
            "with empty prompts (--empty-prompts)"
        )
    sources = []
    one, several = (grid or Grid(), None) if isinstance(grid, Grid | None) else (grid[0], grid)
    rate = one.sample_rate
    for path in paths:
        if path in voices and path not in told and path.suffix.lower() in SOUND:
            continue  # it is there to be heard beside another
        name = path.relative_to(folder).as_posix()
        caption = told.get(path, Caption(""))
        prompt = caption.prompt or (None if need_captions else "")
        size, voice = size_of(path), caption.voice
        if prompt is None:
            place = path.with_suffix(".txt") if captions is None else Path(captions)
            load: Callable[[], Clip] = partial(_refused, name, f"no caption in {place.name}")
        elif caption.mute and not mixed:
            load = partial(_refused, name, MUTED)
        else:
            read: Callable[..., Clip] = partial(read_into_bucket, grids=list(several or ()))
            if not several:
                read = partial(read_clip, grid=one)
            load = partial(read, path, prompt=prompt, id=name, require=AV(not sound, not caption.mute))
            if mixed and not caption.mute:
                load = partial(whatever_there_is, load)
        known = [size, prompt] + ([] if voice is None else [voice.relative_to(folder).as_posix(), size_of(voice)])
        known += ["mute"] if caption.mute else []
        heard = None if voice is None else partial(read_audio, voice, rate)
        sources.append(Source(name, load, json.dumps(known), heard))
    return sources


def media_files(folder: Path) -> list[Path]:
    """Videos and files of sound in a folder and the folders in it, by name. ValueError where there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO | SOUND and not p.name.startswith("."))
    if not paths:
        raise ValueError(f"{folder} holds no video file ({', '.join(sorted(VIDEO))})")
    return paths


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where a link leads to none."""
    return path.stat().st_size if path.exists() else 0


def _refused(name: str, reason: str) -> Clip:
    raise MediaError(name, reason)


def whatever_there_is(load: Callable[..., Clip]) -> Clip:
    """A file's clip of both streams, or of the one that there is; `load` takes which it must `require`."""
    try:
        return load(require=AV(True, True))
    except MediaError as error:
        alone = {"no audio": AV(True, False), "no video": AV(False, True)}.get(cause(error.reason))
        if alone is None:
            raise
        return load(require=alone)
