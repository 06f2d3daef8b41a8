"""Clips for the card: those that are named, or that lie beside the model, with the prompts of their records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ccl.media import look

FOLDER = "samples"  # in the repository, and in a model folder
MOST = 4  # that are taken where none is named


@dataclass(frozen=True)
class Sample:
    """A clip of a card.

    Args:
        file: here.
        prompt: that it was made of; "" where its record does not say.
    """

    file: Path
    prompt: str = ""

    @property
    def name(self) -> str:
        """Its place in the repository."""
        return f"{FOLDER}/{self.file.name}"


def samples_of(home: Path, named: Sequence[Path] = ()) -> list[Sample]:
    """The clips that are named; else those in `samples` of a model folder, else the first of an evaluation.

    Raises:
        ValueError: one is no mp4 that browsers show, or lies elsewhere without being named, or two have one name.
    """
    found = list(named)
    for places in (f"{FOLDER}/*.mp4", "evaluation/*/clips/*.mp4"):
        found = found or [
            inside(home, file) for file in sorted(home.glob(places))[: None if places.startswith(FOLDER) else MOST]
        ]
    names = [file.name for file in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two samples are called {twice[0]}; a name of its own is needed for each")
    for file in found:
        if file.suffix != ".mp4":
            raise ValueError(f"the sample {file} is no .mp4")
        if strange := look(file).strange:
            raise ValueError(f"browsers do not show the sample {file}: {strange}; `ccl generate` writes h264 and aac")
    return [Sample(file, prompt_of(file)) for file in found]


def inside(home: Path, file: Path) -> Path:
    """A file that was found in a folder, and is not only pointed to from there: it may be private.

    Raises:
        ValueError: it leads elsewhere.
    """
    if not (there := file.resolve()).is_relative_to(home.resolve()):
        raise ValueError(f"{file} leads to {there}, outside {home}; copy it there, or name what is meant")
    return file


def prompt_of(file: Path) -> str:
    """What a clip's record says that it was made of; "" without one."""
    try:
        record = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    prompt = record.get("prompt") if isinstance(record, dict) else None
    return prompt if isinstance(prompt, str) else ""
