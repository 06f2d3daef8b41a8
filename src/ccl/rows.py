"""Rows of a prompt file or a test set, one JSON object a line: what is generated, and what it is scored against.

Generation reads id, prompt, then, negative, negative_audio, seed and the media that are given (MEDIA); scoring reads
id, subset, speech, lang, reference and meta; pair, seconds and image_prompt are what a test set is made from. One
format, so that a test set is a prompt file. Paths in a file are relative to its folder.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ccl import arguments
from ccl.files.plaintext import check_prompt, json_lines, strings, unreadable
from ccl.rng import seed_of
from ccl.spelling import did_you_mean
from ccl.types import Stream


@dataclass(frozen=True)
class Row:
    """One clip to make or to score.

    Args:
        id: names the clip, in files and messages.
        prompt: one for both streams, spoken words in double quotes.
        then: prompts of the windows that follow, in order of time, of a clip of several; none is the first one's again.
        negative: the prompt that guidance leads away from; empty is what training dropped to.
        negative_audio: the sound's own such prompt; None is `negative`.
        image: first picture: a path, or (H, W, 3) uint8.
        last_image: last picture, likewise.
        prefix: a clip that this one goes on from: a path, or a ccl.media.Clip. It stands at its beginning.
        suffix: a clip that this one leads to, likewise; it stands at its end.
        voice: a sound of whoever is to speak, likewise: its voice is taken, and nothing that it says.
        audio: given sound: a path, or (S,) float32 at the model's rate.
        video: given pictures: a path, or (T, H, W, 3) uint8.
        seed: of the noise; None derives one from the id.
        subset: of a test set, "easy" or "hard".
        speech: what is spoken, word for word; empty where nobody speaks.
        lang: of the speech, ISO 639-1.
        pair: names what rows of different subsets share: the same speech, another picture.
        seconds: how long the clip is meant to be; None leaves it to the model.
        image_prompt: what a first picture is made from, where none is shipped.
        reference: a true clip of this row.
        meta: whatever else a metric needs (colours that were asked for).
    """

    id: str
    prompt: str = ""
    then: Sequence[str] = ()
    negative: str = ""
    negative_audio: str | None = None
    image: Any = None
    last_image: Any = None
    prefix: Any = None
    suffix: Any = None
    voice: Any = None
    audio: Any = None
    video: Any = None
    seed: int | None = None
    subset: str = ""
    speech: str = ""
    lang: str = "en"
    pair: str = ""
    seconds: float | None = None
    image_prompt: str = ""
    reference: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> Stream | None:
        """The stream that is given, if any.

        Raises:
            ValueError: both are, or what else is given contradicts it, or itself.
        """
        if self.audio is not None and self.video is not None:
            raise ValueError(f"{self.id}: sound and pictures are both given, so nothing is left to generate")
        there = {key for key in MEDIA if getattr(self, key) is not None}
        for one, others in CONTRADICTIONS.items():
            if one in there and (other := next((key for key in others if key in there), None)):
                raise ValueError(f"{self.id}: {NAMES[other]} and {NAMES[one]} are both given; give one of them")
        return "audio" if self.audio is not None else "video" if self.video is not None else None

    def seeded(self, seed: int) -> Row:
        """The row with a seed: its own, or one that follows from `seed` and its id."""
        return self if self.seed is not None else replace(self, seed=seed_of("row", seed, self.id) % 2**31)

    def giving(self, *streams: str) -> Row:
        """The row with these of its media alone (MEDIA); none makes it text only.

        A sound or a video that the row lacks is taken from its reference, so that a2v and v2a run over any test set.

        Raises:
            ValueError: it has none to give.
        """
        media: dict[str, Any] = {key: getattr(self, key) if key in streams else None for key in MEDIA}
        for key in streams:
            if key in MEDIA and media[key] is None:
                media[key] = self.reference if key in ("audio", "video") else None
                if media[key] is None:
                    raise ValueError(f"{self.id}: has no {key} to give")
        return replace(self, **media)


NAMES = {
    "image": "a first image",
    "last_image": "a last image",
    "prefix": "a clip to go on from",
    "suffix": "a clip to lead to",
    "voice": "a voice",
    "audio": "a whole sound",
    "video": "a whole video",
}
MEDIA = tuple(NAMES)
# What else cannot be given beside each: where the one is, there is no room for the other.
CONTRADICTIONS = {
    "video": ("image", "last_image", "prefix", "suffix"),
    "audio": ("prefix", "suffix", "voice"),
    "prefix": ("image", "last_image", "suffix", "voice"),
    "suffix": ("image", "last_image", "voice"),
}
KEYS = tuple(f.name for f in fields(Row))
PATHS = (*MEDIA, "reference")
SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".wav", ".flac")  # of a row's clip, the first one found is taken


def read_rows(path: str | Path, *, give: Collection[str] | None = None, keep: Collection[str] = ()) -> list[Row]:
    """Rows of a JSONL file; empty lines are skipped, a row without an id is named by its line.

    Args:
        path: of the file.
        give: which of the rows' media to give, see `Row.giving`; None gives all they name.
        keep: which others stay where a row has them, and are not looked for.

    Raises:
        ValueError: one sentence with file and line: no JSON, an unknown key, a wrong type, a file that is not there, an
            id that occurs twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, values in json_lines(path):
        try:
            row = parse_row(values, name=f"{path.stem}-{number:04d}", folder=path.parent)
            given = row if give is None else row.giving(*give)
            check_media(given)
            row = replace(given, **{key: getattr(row, key) for key in keep})
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if (own := same_name(row.id)) in seen:
            raise ValueError(f"{path}, line {number}: the id '{row.id}' is that of line {seen[own]} already")
        seen[own] = number
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no rows")
    return rows


def parse_row(values: Any, *, name: str, folder: Path) -> Row:
    """One line's JSON to a row; `name` is its id where it has none, `folder` where relative paths begin."""
    if not isinstance(values, dict):
        raise ValueError('is not a JSON object such as {"prompt": "..."}')
    for key, value in values.items():
        if key not in KEYS:
            raise ValueError(f"there is no key '{key}'{did_you_mean(key, KEYS)}")
        if not _FITS.get(key, _is_text)(value):
            raise ValueError(f"'{key}' is {json.dumps(value)[:60]}; it must be {_WANTED.get(key, 'text')}")
        # The name of a file may be what no text is: old systems wrote them in other encodings.
        if key not in PATHS and (fault := next(filter(None, map(unreadable, strings(value))), "")):
            raise ValueError(f"'{key}' {fault}")
    for key in PATHS:
        if values.get(key) is not None:
            values[key] = str(folder / values[key])
    row = Row(**{"id": name, **values, "then": tuple(values.get("then", ()))})
    for prompt in (row.prompt, *row.then):
        check_prompt(prompt)
    return row


def same_name(id: str) -> str:
    """What two ids share that are one name to a reader, and on some disks: letters composed of the same parts."""
    return unicodedata.normalize("NFC", id)


def check_media(row: Row) -> None:
    """ValueError in words where what a row gives is not there or contradicts itself; a reference is not looked for."""
    _ = row.given
    for key in MEDIA:
        if (file := getattr(row, key)) is not None and not Path(file).is_file():
            raise ValueError(f"its {key} {file} does not exist")


def check_rows(rows: object, *, to_read: bool = False) -> None:
    """ValueError in words where rows that code has made are no list of rows, or their texts and seeds are none.

    Args:
        rows: to look at.
        to_read: whether a model is to read their prompts, which must be text then.
    """
    arguments.instance("rows", rows, (list, tuple), "a list of ccl.rows.Row")
    assert isinstance(rows, list | tuple)
    for place, row in enumerate(rows):
        arguments.instance(f"rows[{place}]", row, Row, "a ccl.rows.Row")
        for key in ("id", "prompt", "negative", "subset", "speech", "lang"):
            arguments.instance(f"{key} of rows[{place}]", getattr(row, key), str, "text")
        arguments.instance(f"then of rows[{place}]", row.then, (list, tuple), "a list of prompts")
        for text in row.then:
            arguments.instance(f"then of rows[{place}]", text, str, "text")
        arguments.instance(f"negative_audio of rows[{place}]", row.negative_audio, (str, type(None)), "text, or None")
        texts = {"prompt": (row.prompt,), "then": row.then, "negative": (row.negative, row.negative_audio or "")}
        for key, each in texts.items() if to_read else ():
            if fault := next(filter(None, map(unreadable, each)), ""):
                raise ValueError(f"{key} of rows[{place}] {fault}")
        if not _FITS["seed"](row.seed):
            raise ValueError(f"seed of rows[{place}] is {arguments.described(row.seed)}; it must be {_WANTED['seed']}")


def file_names(rows: Sequence[Row]) -> list[str]:
    """A file name of each row's id: letters, digits, dot, dash and underscore, no path, at most 120 characters."""
    safe = [re.sub(r"[^\w.-]+", "_", row.id)[:120] for row in rows]
    # A file system counts bytes, 255 at most, and a temporary name is longer than the last.
    names = [name.encode()[:200].decode(errors="ignore").strip("._") or "clip" for name in safe]
    seen: dict[str, str] = {}
    for row, name in zip(rows, names, strict=True):
        own = same_name(name).lower()  # some file systems do not tell cases apart, or letters and their parts
        if own in seen:
            raise ValueError(f"the ids '{seen[own]}' and '{row.id}' would both become {name}")
        seen[own] = row.id
    return names


def write_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as JSONL text."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_FITS: dict[str, Callable[[Any], bool]] = {
    **{key: lambda v: v is None or isinstance(v, str) for key in PATHS},
    "id": lambda v: isinstance(v, str) and bool(v.strip()),
    "then": lambda v: isinstance(v, list) and all(isinstance(text, str) for text in v),
    "negative_audio": lambda v: v is None or isinstance(v, str),
    "seed": lambda v: v is None or (isinstance(v, int) and not isinstance(v, bool)),
    "seconds": lambda v: v is None or (isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < float("inf")),
    "meta": lambda v: isinstance(v, dict),
}
_WANTED = {
    **dict.fromkeys(PATHS, "the path of a file"),
    "id": "text that is not empty",
    "then": "a list of prompts",
    "seed": "a whole number",
    "seconds": "a number above 0",
    "meta": "an object",
}
