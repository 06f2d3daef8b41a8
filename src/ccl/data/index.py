"""What a folder of shards says of itself: index.json, and buckets.json of a folder of buckets.

Both are written last, so a folder that has one is complete. They may come from anybody: a value of the wrong kind is
told with its key, and a name that leads out of the folder is no name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ccl.files import FileError, plain_name, reading, write_whole
from ccl.grid import Grid
from ccl.types import AV, STREAMS

VERSION = 1
INDEX, PARTIAL, BUCKETS = "index.json", "index.partial.json", "buckets.json"
Kind = Literal["media", "latents"]
KINDS = ("both", *STREAMS)  # of clips: with both streams, or with one alone
Line = dict[str, Any]
"""What an index says of a shard: name, samples, bytes, sha256; and `uncaptioned`, where prompts of it are empty."""
SMALLEST = 2048  # bytes of a sample in a tar file: a clip and its json, each with a header, in blocks of 512


# The index -----------------------------------------------------------------------------------------------------------


def read_index(path: Path) -> dict[str, Any]:
    """An index.json whose every value is of its kind, and whose names are plain.

    Raises:
        ValueError: in a sentence that names the file and the key: it is missing, none of ours or of another version.
    """
    if not path.is_file():
        raise FileError(f"{path.parent} holds no {path.name}; make shards with `ccl shards make`")
    with reading(path, "an index of shards"):
        index = json.loads(path.read_text(encoding="utf-8"))
    _must(isinstance(index, dict) and isinstance(index.get("settings"), dict), path, "settings", "an object")
    settings = index["settings"]
    _must(_whole(settings.get("version")), path, "settings.version", "a number")
    if settings["version"] != VERSION:
        raise FileError(f"{path} has version {settings['version']}; this code reads version {VERSION}")
    _check_settings(settings, path)
    if "text" in settings and path.name == INDEX:
        empty = index.get("empty")
        _must(isinstance(empty, dict) and _whole(empty.get("crc32"), 0), path, "empty.crc32", "a sum")
    lines, skipped = index.get("shards"), index.get("skipped")
    _must(isinstance(lines, list), path, "shards", "a list")
    for number, line in enumerate(lines):
        check_line(line, path, f"shards.{number}")
    names = Counter(line["name"] for line in lines)
    twice = [name for name, times in names.items() if times > 1]
    _must(not twice, path, "shards", f"of different names, and {twice[:1]} is there twice")
    samples, held = index.get("samples"), sum(line["samples"] for line in lines)
    _must(_whole(samples, 0) and samples == held, path, "samples", f"those of its shards, {held}, not {samples!r:.80}")
    _must(_whole(index.get("consumed"), held), path, "consumed", f"a whole number, at least {held}")
    _must(isinstance(skipped, list), path, "skipped", "a list")
    for number, row in enumerate(skipped):
        pair = isinstance(row, list) and len(row) == 2 and all(isinstance(text, str) for text in row)
        _must(pair, path, f"skipped.{number}", "a clip and its reason")
    return index


def check_line(line: Any, path: Path, key: str = "it") -> Line:
    """What is said of a shard, if it is a line of an index; FileError naming file and key where it is none."""
    _must(isinstance(line, dict), path, key, "an object")
    name = plain_name(line.get("name"), f"{path}: {key}.name")
    _must(name.endswith(".tar"), path, f"{key}.name", "a tar file")
    for count in ("samples", "bytes"):
        _must(_whole(line.get(count)), path, f"{key}.{count}", f"a whole number, at least 1, for {name}")
    fits = line["samples"] * SMALLEST <= line["bytes"]
    _must(fits, path, f"{key}.samples", f"what {name} can hold, not {line['samples']}")
    found = line.get("sha256")
    _must(isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found), path, f"{key}.sha256", "64 hex digits")
    _must(_whole(line.get("uncaptioned", 0), 0), path, f"{key}.uncaptioned", f"a whole number, for {name}")
    return line


def uncaptioned(lines: Sequence[Line]) -> int:
    """How many clips of these shards have an empty prompt."""
    return sum(line.get("uncaptioned", 0) for line in lines)


def _check_settings(settings: dict[str, Any], path: Path) -> None:
    kind, streams = settings.get("kind"), settings.get("streams", ["video"])
    found: Any = settings.get("grid")
    _must(kind in ("media", "latents"), path, "settings.kind", "media or latents")
    known = isinstance(streams, list) and streams and all(stream in STREAMS for stream in streams)
    _must(known, path, "settings.streams", "a list of streams, video and audio")
    names = grid_names(kind)  # type: ignore[arg-type]  # it is one of the two
    if kind == "latents" and isinstance(found, dict) and "audio_latents" in found:
        names = (*names, "audio_latents")
    _must(isinstance(found, dict) and found.keys() == set(names), path, "settings.grid", f"of {', '.join(names)}")
    for name in names:
        if name in ("fps", "latent_rate"):
            fine = _whole(found[name]) or (isinstance(found[name], float) and 0 < found[name] < math.inf)
            _must(fine, path, f"settings.grid.{name}", "a positive number")
        else:
            _must(_whole(found[name]), path, f"settings.grid.{name}", "a whole number, at least 1")
    with reading(path, "an index of shards"):  # no clip can have some lengths
        stored_grid(settings)
    _must(isinstance(settings.get("faces", ""), str), path, "settings.faces", "what found them")
    _must(isinstance(settings.get("voices", True), bool), path, "settings.voices", "whether clips have them")
    if kind == "latents":
        _must(isinstance(settings.get("codec"), str), path, "settings.codec", "the identity of codecs")
    if "text" in settings:
        text = settings["text"]
        fine = isinstance(text, dict) and isinstance(text.get("identity"), str)
        _must(fine, path, "settings.text.identity", "that of a text encoder")
        for name in ("length", "dim"):
            _must(_whole(text.get(name)), path, f"settings.text.{name}", "a whole number, at least 1")


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _must(holds: Any, path: Path, key: str, what: str) -> None:
    if not holds:
        raise FileError(f"{path} is not an index of shards: {key} must be {what}")


def digest(index: dict[str, Any]) -> str:
    """Of all clips in the shards of an index."""
    return hashlib.sha256(dump([line["sha256"] for line in index["shards"]])).hexdigest()


def content(folder: Path) -> str:
    """Sum of all clips in a folder of shards, or of buckets."""
    return hashlib.sha256(
        dump({name: digest(read_index(folder / name / INDEX)) for name in buckets_in(folder)})
    ).hexdigest()


def write_index(
    path: Path,
    settings: dict[str, Any],
    shards: list[Line],
    *,
    skipped: list[tuple[str, str]],
    consumed: int,
    **more: Any,
) -> None:
    """An index, whole or not at all: finished under INDEX, on the way under PARTIAL; `more` is kept in it."""
    state = {
        "settings": settings,
        "samples": sum(shard["samples"] for shard in shards),
        "consumed": consumed,
        "shards": shards,
        "skipped": skipped,
        **more,
    }
    write_whole(path, json.dumps(state, indent=1, sort_keys=True) + "\n")


# Its settings --------------------------------------------------------------------------------------------------------


def settings_of(folder: str | Path) -> dict[str, Any]:
    """What the index of shards, or of their first bucket, says of them all.

    Raises:
        ValueError: there is no index, or it is none.
    """
    return read_index(Path(folder) / buckets_in(Path(folder))[0] / INDEX)["settings"]


def held(index: dict[str, Any]) -> AV[bool]:
    """The streams that shards hold, by their index."""
    names = index["settings"].get("streams", STREAMS)
    return AV(*(stream in names for stream in STREAMS))


def kind_of(streams: AV[bool]) -> str:
    """What clips of these streams are called: "both", or the one that they have, "video" or "audio"."""
    return "both" if all(streams) else STREAMS[streams.index(True)]


def settings_differ(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of the settings that two indices do not share, those of the grid one by one."""
    a, b = _flat(json.loads(dump(wanted))), _flat(found)
    return sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or a[name] != b[name])


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    inner = {f"grid.{name}": value for name, value in settings.get("grid", {}).items()}
    return {**{name: value for name, value in settings.items() if name != "grid"}, **inner}


def grid_names(kind: Kind) -> tuple[str, ...]:
    """Of the part of a grid that stored media, or latents, depend on."""
    media = ("frames", "fps", "height", "width", "sample_rate")
    return media if kind == "media" else (*media, "latent_rate", "stride_time", "stride_space")


def grid_settings(grid: Grid, kind: Kind) -> dict[str, int | float]:
    """The part of a grid that stored media, or latents, depend on; a count of latents where it is not the usual one."""
    counted = kind == "latents" and grid.t_a != replace(grid, audio_latents=None).t_a
    return {name: getattr(grid, name) for name in (*grid_names(kind), *(["audio_latents"] if counted else []))}


def stored_grid(settings: dict[str, Any]) -> Grid:
    """The grid of stored clips; where they are media, any codec may come after, so that all its rates are the media's.

    Raises:
        ValueError: there is no such clip.
    """
    rates: dict[str, Any] = {"latent_rate": settings["grid"]["sample_rate"], "stride_time": 1, "stride_space": 1}
    found = rates | settings["grid"]
    found |= {name: float(found[name]) for name in ("fps", "latent_rate")}
    return Grid(**found, patch=1)


def dump(value: Any) -> bytes:
    """JSON with sorted keys, numpy's numbers and arrays included: the same value gives the same bytes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=lambda x: x.tolist())
    return text.encode(errors="backslashreplace")  # half a character, as of a file's name, is an escape of JSON


# Buckets -------------------------------------------------------------------------------------------------------------


def buckets_in(folder: Path) -> list[str]:
    """Names of the folders of shards in a folder of buckets; [""] where it is a folder of shards itself.

    Raises:
        ValueError: its buckets.json is none.
    """
    path = folder / BUCKETS
    if not path.is_file():
        return [""]
    with reading(path, "a list of buckets"):
        names = json.loads(path.read_text(encoding="utf-8"))["buckets"]
    if not isinstance(names, list) or not names:
        raise FileError(f"{path} is no list of buckets")
    names = [plain_name(name, path) for name in names]
    if len(set(names)) < len(names):
        raise FileError(f"{path} is no list of buckets: it names one twice")
    return names


def write_buckets(folder: Path, names: Sequence[str]) -> None:
    """Last of all, so that a folder that has the list is complete."""
    write_whole(folder / BUCKETS, json.dumps({"buckets": list(names)}) + "\n")
