"""What the page sends, turned into a row and the settings of a clip; whatever does not fit is said in its words."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccl.files.plaintext import check_prompt, unreadable
from ccl.guidance import Guidance, named
from ccl.rows import MEDIA, NAMES, Row
from ccl.types import AV, Scale

OWN = "the model's own"  # guidance
WANTED = {
    "pictures and sound": AV(True, True),
    "pictures alone": AV(True, False),
    "sound alone": AV(False, True),
}
GIVEN = {key: f"{name[0].upper()}{name[1:]}" for key, name in ((key, NAMES[key].split(" ", 1)[1]) for key in MEDIA)}
Number = float | int | str  # as a browser sends them; an empty text is none
LETTERS = 10_000  # of a prompt: more keep others waiting, and no model reads them
SEEDS = 2**53  # above which a browser's numbers are no longer whole


@dataclass(frozen=True)
class Bounds:
    """What one request may ask for, so that it does not keep others waiting for long.

    Args:
        steps: of the solver.
        seconds: of the clip.
    """

    steps: int = 100
    seconds: float = 30.0


@dataclass(frozen=True)
class Side:
    """What may differ between two clips side by side.

    Args:
        guidance: name of a rule, or OWN.
        video: its strength for pictures; None is the model's.
        audio: its strength for sound.
        modal_video: strength of the sound for pictures.
        modal_audio: strength of the pictures for sound.
        steps: of the solver; None is the model's.
        seed: of the noise; None is 0.
    """

    guidance: str | None = OWN
    video: Number | None = None
    audio: Number | None = None
    modal_video: Number | None = None
    modal_audio: Number | None = None
    steps: Number | None = None
    seed: Number | None = None

    def rule(self, own: Guidance) -> Guidance:
        """The guidance rule, with the model's own strengths where none is said.

        Raises:
            ValueError: there is no such rule, it has no such strength, or only one of two is said.
        """
        scale = pair("scale", self.video, self.audio)
        modal = pair("modal scale", self.modal_video, self.modal_audio)
        name = None if self.guidance in (None, OWN) else self.guidance
        try:
            return named(name, own, scale=scale, modal=modal)
        except ValueError as error:
            raise ValueError(str(error).replace("--", "")) from error  # a page has no flags


@dataclass(frozen=True)
class Asked:
    """One request.

    Args:
        prompt: of both streams.
        negative: prompt to lead away from.
        given: uploaded files, by the name of a row's medium (`ccl.rows.MEDIA`).
        wanted: a key of WANTED.
        seconds: of the clip; None or 0 is one window.
        sides: one, or two to be made side by side.
    """

    prompt: str
    negative: str = ""
    given: Mapping[str, str | None] = field(default_factory=dict)
    wanted: str = "pictures and sound"
    seconds: Number | None = None
    sides: tuple[Side, ...] = (Side(),)

    def row(self, side: Side, id: str) -> Row:
        """The row of one clip.

        Raises:
            ValueError: the prompt is none, the seed is none, given media contradict each other.
        """
        if not self.prompt.strip():
            raise ValueError("the prompt is empty; say what is to be seen and heard, spoken words in double quotes")
        try:
            check_prompt(self.prompt)
        except ValueError as error:
            raise ValueError(str(error).replace("its prompt", "the prompt", 1)) from error
        if fault := unreadable(self.negative):
            raise ValueError(f"the negative prompt {fault}")
        for what, text in (("prompt", self.prompt), ("negative prompt", self.negative)):
            if len(text) > LETTERS:
                raise ValueError(f"the {what} has {len(text):,} letters; here {LETTERS:,} are the most")
        media: dict[str, Any] = {key: path for key, path in self.given.items() if path}
        if unknown := set(media) - set(MEDIA):
            raise ValueError(f"there is no medium '{min(unknown)}' to give; there are: {', '.join(MEDIA)}")
        seed = whole("seed", side.seed, 0, SEEDS)
        row = Row(id, self.prompt, negative=self.negative, seed=seed or 0, **media)
        try:
            _ = row.given
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{id}: ")) from error
        return row

    def settings(self, side: Side, own: Guidance, bounds: Bounds) -> dict[str, Any]:
        """What `Pipeline.generate` takes beside the row.

        Args:
            side: of the clip.
            own: the model's guidance.
            bounds: of this server.

        Raises:
            ValueError: something is no number, or beyond the bounds.
        """
        if self.wanted not in WANTED:
            raise ValueError(f"'{self.wanted}' cannot be made; there are: {', '.join(WANTED)}")
        seconds = number("seconds", self.seconds, 0, bounds.seconds)
        return {
            "wanted": WANTED[self.wanted],
            "guidance": side.rule(own),
            "steps": whole("steps", side.steps, 1, bounds.steps),
            "seconds": seconds or None,
        }

    def plain(self, text: str) -> str:
        """A sentence in which uploads have the names that they were sent with, not those of folders here."""
        for path in filter(None, self.given.values()):
            # The folder alone: a library may write odd letters of the name in escapes.
            text = text.replace(f"{Path(path).parent}{os.sep}", "")
        return text


def pair(what: str, video: Number | None, audio: Number | None) -> Scale | None:
    """A strength for both streams; None where neither is said."""
    for_video, for_audio = (number(f"the {what}", one, -1000, 1000) for one in (video, audio))
    if for_video is not None and for_audio is not None:
        return Scale(for_video, for_audio)
    if for_video is None and for_audio is None:
        return None
    raise ValueError(f"the {what} is said of one stream alone; say it of pictures and of sound, or of neither")


def number(what: str, given: Number | None, least: float | int, most: float | int) -> float | None:
    """A number within bounds; None where nothing is given. ValueError otherwise."""
    if (value := read(given)) is not None and not least <= value <= most:
        raise ValueError(f"{what} is {str(given)[:40]}; here it must be a number from {least:g} to {most:g}")
    return value


def whole(what: str, given: Number | None, least: int, most: int) -> int | None:
    """A whole number within bounds; None where nothing is given. ValueError otherwise."""
    value = read(given)
    if value is not None and not (least <= value <= most and value == int(value)):
        raise ValueError(f"{what} is {str(given)[:40]}; here it must be a whole number from {least} to {most}")
    return None if value is None else int(value)


def read(given: Number | None) -> float | None:
    """A number, or what is none (NaN lies within no bounds); None where nothing is given."""
    text = "" if given is None else str(given).strip()
    try:
        return float(text) if text else None
    except ValueError:
        return math.nan
