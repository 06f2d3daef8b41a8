"""Answers as the page saves them: one JSON object a line, each read rightly or refused with file and line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccl.files import FileError
from ccl.files.plaintext import json_lines, strings, unreadable
from ccl.study.design import Trial
from ccl.study.key import Key
from ccl.study.questions import ANSWERS, BROKEN, LEFT, TIE

LONGEST = 200  # letters of a rater's name


@dataclass(frozen=True)
class Answer:
    """What one rater says of one trial.

    Args:
        rater: by the name that was given, or a random one.
        trial: that was shown.
        question: its key.
        side: that is better, as the trial names it; "" is neither, None where the browser could not play a clip.
    """

    rater: str
    trial: Trial
    question: str
    side: str | None


def read_answers(key: Key, paths: Iterable[Path]) -> list[Answer]:
    """All answers in some files.

    Args:
        key: of the study.
        paths: JSONL files; of a folder all `.jsonl` in it.

    Raises:
        FileError: in a sentence with file and line: no JSON, another study's answer, a trial or a question that this
            study has not, clips that are not the trial's, an answer that is given twice.
    """
    found: list[Answer] = []
    seen: dict[tuple[str, int, str], str] = {}
    for path in files_of(paths):
        for number, values in json_lines(path):
            where = f"{path}, line {number}"
            try:
                answer = parsed(key, values)
            except ValueError as error:
                raise FileError(f"{where}: {error}") from error
            named = (answer.rater, values["trial"], answer.question)
            if before := seen.get(named):
                raise FileError(
                    f"{where}: '{answer.rater}' has answered trial {values['trial']} for {answer.question} already "
                    f"({before}); leave one file out, or give one of two raters another name"
                )
            seen[named] = where
            found.append(answer)
    if not found:
        raise FileError(f"{', '.join(map(str, paths)) or 'nothing'} holds no answers")
    return found


def files_of(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and those of folders, each once. FileError where one is not there."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not path.exists() or not inside:
            raise FileError(f"{path} is no file, nor a folder with .jsonl files")
        for file in inside:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def parsed(key: Key, values: Any) -> Answer:
    """One line of a file. ValueError in words where it is no answer to this study."""
    if not isinstance(values, Mapping):
        raise ValueError("is no JSON object, as a line of answers is")
    if fault := next(filter(None, map(unreadable, strings(values))), ""):
        raise ValueError(fault)
    for name in ("study", "rater", "question", "answer", "left", "right"):
        if not isinstance(values.get(name), str):
            raise ValueError(f"'{name}' is {_shown(values, name)}; it must be text")
    if values["study"] != key.study:
        raise ValueError(f"is of the study '{values['study'][:40]}', and the key is of '{key.study}'")
    if not 0 < len(values["rater"].strip()) <= LONGEST:
        raise ValueError(f"'rater' has no letter, or more than {LONGEST}")
    place = values.get("trial")
    if type(place) is not int or not 0 <= place < len(key.trials):
        raise ValueError(f"'trial' is {_shown(values, 'trial')}; this study has 0 to {len(key.trials) - 1}")
    if values["question"] not in key.questions:
        raise ValueError(f"'question' is {_shown(values, 'question')}; this study asks {', '.join(key.questions)}")
    if values["answer"] not in ANSWERS:
        raise ValueError(f"'answer' is {_shown(values, 'answer')}; it must be one of {', '.join(ANSWERS)}")
    trial = key.trials[place]
    if {(values["left"], values["right"])} - {trial.clips, trial.clips[::-1]}:
        raise ValueError(f"'left' and 'right' are not the clips of trial {place}")
    return Answer(values["rater"].strip(), trial, values["question"], side_of(trial, values))


def side_of(trial: Trial, values: Mapping[str, str]) -> str | None:
    """The side that an answer chose, whichever way round it was shown."""
    if values["answer"] in (TIE, BROKEN):
        return "" if values["answer"] == TIE else None
    as_it_stands = (values["left"], values["right"]) == trial.clips
    return trial.sides[0 if (values["answer"] == LEFT) == as_it_stands else 1]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name])[:60] if name in values else "missing"


def raters_of(answers: Sequence[Answer]) -> list[str]:
    """Names of the raters, in order."""
    return sorted({answer.rater for answer in answers})
