"""The key of a study: what lies behind the names of its page. It is never handed out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ccl.files import FileError, reading, write_whole
from ccl.files.plaintext import read_text
from ccl.study.design import SAME, SHUFFLED, Trial

KEY, PAGE = "key.json", "page"  # in the folder of a study; the second is what raters get
VERSION = 1


@dataclass(frozen=True)
class Key:
    """What un-blinds a study.

    Args:
        study: its name, which every answer bears: follows from everything that it was made from.
        seed: of what was drawn.
        methods: names of the systems.
        questions: what was asked, by key.
        trials: in the page's order.
        raters: how many parts there are.
        left_out: rows that no rater sees, with the reason.
        converted: clips, as `METHOD/ROW`, that had to be encoded anew.
    """

    study: str
    seed: int
    methods: Sequence[str]
    questions: Mapping[str, str]
    trials: Sequence[Trial]
    raters: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    converted: Sequence[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write it into the folder of the study, whole."""
        values = {"version": VERSION, **asdict(self)}
        write_whole(folder / KEY, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def read_key(folder: Path) -> Key:
    """The key of the study in a folder.

    Raises:
        FileError: it is not there, or is none.
    """
    path = folder / KEY
    if not path.is_file():
        raise FileError(f"{path} is not there; a study is a folder that `ccl study make` has written")
    with reading(path, "the key of a study"):
        values: Any = json.loads(read_text(path))
        if not isinstance(values, dict) or values.pop("version", None) != VERSION:
            raise FileError(f"{path} is no key of a study that this version reads")
        try:
            trials = [_trial(one) for one in values["trials"]]
            key = Key(**{**values, "trials": trials})
        except (TypeError, AttributeError) as error:
            raise FileError(f"{path} lacks something, or has what no key has ({error})") from error
        if fault := _fault(key):
            raise FileError(f"{path}: {fault}")
    return key


def _trial(values: dict[str, Any]) -> Trial:
    pairs: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Trial(**pairs)


def _fault(key: Key) -> str:
    """What is wrong with the values of a key, in words; "" where nothing is."""
    texts = (key.study, *_list(key.methods), *_list(key.converted), *_items(key.questions), *_items(key.left_out))
    counts = (key.seed, key.raters)
    if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
        return "a value in it is of another kind than it must be"
    if len(key.methods) < 2 or not key.questions:
        return "it names fewer than two systems, or no question"
    for place, trial in enumerate(key.trials):
        both = (trial.sides, trial.clips)
        if not all(isinstance(two, tuple) and len(two) == 2 and all(isinstance(x, str) for x in two) for two in both):
            return f"trial {place} has not two sides and two clips"
        if not isinstance(trial.row, str) or trial.check not in ("", SAME, SHUFFLED):
            return f"trial {place} has no row, or another check than there are"
        if not trial.check and not set(trial.sides) <= set(key.methods):
            return f"trial {place} is of a system that it does not name"
    return ""


def _list(values: object) -> list[object]:
    return values if isinstance(values, list) else [None]


def _items(values: object) -> list[object]:
    return [text for pair in values.items() for text in pair] if isinstance(values, dict) else [None]
