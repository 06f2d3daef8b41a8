"""A study in a folder: a page with blind clips to hand out, and beside it the key.

The page asks nothing of any network, and works from a folder as from any server.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ccl.evaluation.report.gallery import as_json
from ccl.files import FileError, one_writer, sha256, sweep, write_whole
from ccl.rows import Row
from ccl.study.clips import Clips, Sources, sources
from ccl.study.design import Showing, Trial, compared, disguised, parts
from ccl.study.key import KEY, PAGE, Key, read_key
from ccl.study.questions import TELLS

CLIPS = "clips"  # in the page's folder


@dataclass(frozen=True)
class Order:
    """What a study is to be.

    Args:
        questions: texts by key, in the order they are asked in.
        pairs: how many comparisons there are; None is every pair of systems on every row.
        raters: parts to hand out.
        per_rater: comparisons in a part; None is all.
        checks: of each kind that can be made, in every part.
        prompts: whether raters read them.
        together: whether both clips play at once, in place of one after the other.
        seed: of what is drawn.
    """

    questions: Mapping[str, str]
    pairs: int | None = None
    raters: int = 12
    per_rater: int | None = None
    checks: int = 3
    prompts: bool = True
    together: bool = False
    seed: int = 0


def make(
    methods: Mapping[str, Path],
    rows: Sequence[Row],
    order: Order,
    out: Path,
    *,
    reference: Path | None = None,
    progress: Callable[..., None] = lambda done, total, now="": None,
) -> Key:
    """Write a study into `out`: `page/`, which is handed out, and `key.json`, which is not.

    A row of which some system has no clip that can be shown is left out for all of them, and stands in the key with the
    reason.

    Args:
        methods: folders of clips by the name of their system; two or more.
        rows: of a test set; a clip is named by its row's id.
        order: what the study is to be.
        out: folder of the study.
        reference: folder of true clips, for checks by sound that belongs to other pictures.
        progress: told how many rows are done, of how many, and which one is next.

    Raises:
        FileError: another study lies in `out`, or somebody is writing there.
        ValueError: no row has a clip of every system, or there are fewer comparisons than are asked for.
    """
    found = sources(methods, rows)
    true = {row: paths[""] for row, paths in sources({"": reference}, rows).items() if paths} if reference else {}
    named = study_of(methods, rows, order, found, true)
    with one_writer(out):
        if (out / KEY).exists() and read_key(out).study != named:
            raise FileError(f"{out} holds another study, whose key would be lost; choose another folder")
        clips = Clips(out / PAGE / CLIPS, order.seed)
        clips.place.mkdir(parents=True, exist_ok=True)
        for folder in (out, out / PAGE, clips.place):
            sweep(folder)
        left_out = clips.gather(list(methods), rows, found, progress)
        kept = [row for row in rows if row.id not in left_out]
        if not kept:
            raise ValueError(f"no row has a clip of every system; of {rows[0].id}, {left_out[rows[0].id]}")
        trials, showings = trials_of(methods, kept, order, clips, true)
        key = Key(named, order.seed, list(methods), order.questions, trials, order.raters, left_out, clips.converted)
        key.write(out)
        clips.keep(trials)
        write_whole(out / PAGE / "index.html", page(key, showings, rows, order))
    return key


def trials_of(
    methods: Mapping[str, Path], rows: Sequence[Row], order: Order, clips: Clips, true: Mapping[str, Path]
) -> tuple[list[Trial], list[list[Showing]]]:
    """Comparisons and checks, disguised, and who is shown which of them."""
    trials = [
        Trial(t.row, t.sides, (clips.names[t.sides[0], t.row], clips.names[t.sides[1], t.row]))
        for t in compared(list(methods), [row.id for row in rows], order.pairs, order.seed)
    ]
    trials += clips.same(list(methods), rows, order.checks)
    if set(TELLS) & set(order.questions):
        trials += clips.shuffled(rows, true, order.checks)
    return disguised(trials, parts(trials, order.raters, order.per_rater, order.seed), order.seed)


def study_of(
    methods: Mapping[str, Path], rows: Sequence[Row], order: Order, found: Sources, true: Mapping[str, Path]
) -> str:
    """A name that follows from all that a study is made from, the bytes of its clips included."""
    said: list[Any] = [list(methods), asdict(order), {row: sha256(path) for row, path in true.items()}]
    for row in rows:
        clips = {method: sha256(path) for method, path in found[row.id].items()}
        said.append([row.id, row.prompt, row.speech, row.pair, clips])
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def page(key: Key, showings: Sequence[Sequence[Showing]], rows: Sequence[Row], order: Order) -> str:
    """The page: nothing of the key but names of clips, what is asked, and who is shown which."""
    prompts = {row.id: row.prompt for row in rows} if order.prompts else {}
    data = {
        "study": key.study,
        "folder": CLIPS,
        "together": order.together,
        "questions": [{"key": name, "text": text} for name, text in key.questions.items()],
        "trials": [{"clips": trial.clips, "prompt": prompts.get(trial.row, "")} for trial in key.trials],
        "parts": [[[showing.trial, int(showing.flipped)] for showing in part] for part in showings],
    }
    return Template(asset("study.html")).substitute(
        css=asset("study.css"), js=asset("study.js"), data=as_json(data).encode(errors="replace").decode()
    )


def asset(name: str) -> str:
    """A file of the page."""
    return (files("ccl.study") / "page" / name).read_text(encoding="utf-8")
