"""Kills and full disks: after any the same command goes on, and ends with what an undisturbed one leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccl import cli
from ccl.serve.page import MISSING
from faults import page
from faults.process import Outcome, run
from faults.world import (
    CAPTION,
    ENCODE,
    EVALUATE,
    EXPORT,
    FIT,
    GENERATE,
    MAKE,
    MERGE,
    PUSH,
    READ,
    SERVE,
    STUDY,
    copy,
    seen,
)

WAYS = ("after", "at_change", "at_change", "full_at")  # by which a moment is drawn
# What Python itself says in a worker whose parent was killed (a pickle cut short, a connection reset) nobody can put
# into words; a traceback that passes through files of ours is a fault.
OURS = "/ccl/"
FSDP = "lightning.pytorch.strategies.ModelParallelStrategy"


@dataclass(frozen=True)
class Target:
    """A command that is killed.

    Args:
        name: in the table.
        command: without `ccl`.
        needs: what of the world it begins from.
        leaves: the folder it writes.
        look: what an undisturbed command leaves in that folder, as a table of comparable values.
        again: what the command is called with to go on, in addition.
        ranks: processes that train together.
        slow: it takes long, or is another one with one thing more.
        main: what takes the command's words.
        midway: after a kill, too, all that it finds there is what an undisturbed one leaves, or is not there.
        lacks: why it cannot be run here.
    """

    name: str
    command: str
    needs: tuple[str, ...]
    leaves: str
    look: Callable[[Path], dict[str, Any]]
    again: str = ""
    ranks: int = 1
    slow: bool = False
    main: Callable[[list[str]], int] = cli.main
    midway: bool = False
    lacks: str = ""


@dataclass
class Tally:
    """Of one target: kills that hit, disks that were full, and what went wrong after which; or why it was not run."""

    kills: int = 0
    full: int = 0
    rounds: int = 0
    faults: list[str] = field(default_factory=list)
    skipped: str = ""


def bytes_of(folder: Path) -> dict[str, str]:
    """Every file by its sum; the lock says who wrote last and does not count."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def trained(folder: Path) -> dict[str, Any]:
    """Losses, and every leaf of the last checkpoint."""
    from helpers.trainings import flat

    found: dict[str, Any] = {
        "losses": [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    }
    found["checkpoints"] = sorted(path.name for path in (folder / "checkpoints").glob("*.ckpt"))
    last = folder / "checkpoints/last.ckpt"
    if last.is_dir():
        from ccl.storage.sharded_checkpoint import read_sharded

        leaves: dict[str, Any] = dict(read_sharded(last.resolve()))
    else:
        leaves = flat(torch.load(last, weights_only=True))
    for name, leaf in leaves.items():
        found[name] = hashlib.sha256(leaf.numpy().tobytes()).hexdigest() if isinstance(leaf, torch.Tensor) else leaf
    return found


def clips_of(folder: Path) -> dict[str, Any]:
    """Clips as they are decoded, and their records but for the clips' own sums: an encoder may differ in a byte."""
    from ccl.media import read_natural

    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."):
        if path.suffix == ".mp4":
            clip, _ = read_natural(path)
            pictures, sound = np.asarray(clip.video), np.asarray(clip.audio)
            found[path.name] = hashlib.sha256(pictures.tobytes() + sound.tobytes()).hexdigest()
        else:
            record = json.loads(path.read_text())
            found[path.name] = {
                key: record.get(key) for key in ("id", "prompt", "seed", "weights", "steps", "guidance")
            }
    return found


def served(folder: Path) -> dict[str, Any]:
    """What a page keeps, by what it holds, as names are random: uploads, records, clips and whether each has one."""
    from ccl.generation.generate import finished

    sent = bytes_of(folder / "uploads")
    found: dict[str, Any] = {"half sent": sum("/" not in name for name in sent)}
    found |= {f"upload {Path(name).name} {held}": True for name, held in sent.items() if "/" in name}
    made = clips_of(folder / "clips")
    for name in [name for name in made if name.endswith(".mp4")]:
        clip, record = made.pop(name), made.pop(f"{Path(name).stem}.json", {})
        found[f"clip {clip}"] = found.get(f"clip {clip}", True) and bool(record)
        if record:
            fits = "fits" if finished(folder / "clips" / name, {}) else "does not fit"
            found[f"record {record | {'id': ''}}, which {fits} clip {clip}"] = True
    return found | made


def scored(folder: Path) -> dict[str, Any]:
    """Rows of scores in any order, and the table in numbers."""
    rows = sorted((folder / "scores.jsonl").read_text().splitlines())
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {"rows": rows, "csv": (folder / "table.csv").read_text(), "files": names}


LAST = "--ckpt_path last"
RUN = f"{FIT} --name killed"
TWO = (
    f"--trainer.strategy {FSDP} --trainer.strategy.data_parallel_size 2 --trainer.strategy.tensor_parallel_size 1 "
    "--trainer.strategy.save_distributed_checkpoint true --trainer.devices 2 --trainer.accelerator cpu "
    "--data.init_args.batch_size 1"
)
OWN, RAW, SHARDS = ("small.yaml", "latents"), ("clips", "captions.csv"), ("shards", "small.yaml")
TARGETS = (
    Target("fit", RUN, OWN, "runs/killed", trained, LAST),
    Target("fit, 2 workers", f"{RUN} --data.init_args.num_workers 2", OWN, "runs/killed", trained, LAST, slow=True),
    Target(
        "fit, 2 batches a step",
        f"{RUN} --trainer.accumulate_grad_batches 2",
        OWN,
        "runs/killed",
        trained,
        LAST,
        slow=True,
    ),
    Target("fit, FSDP2 on 2 processes", f"{RUN} {TWO}", OWN, "runs/killed", trained, LAST, ranks=2, slow=True),
    Target("shards caption", CAPTION, ("clips", "mine.py"), "out", bytes_of),
    Target("shards make", MAKE, RAW, "out", bytes_of),
    Target("shards make, 2 workers", f"{MAKE} --workers 2", RAW, "out", bytes_of, slow=True),
    Target("shards encode", ENCODE, SHARDS, "out", bytes_of),
    Target("shards encode, 2 workers", f"{ENCODE} --workers 2", SHARDS, "out", bytes_of, slow=True),
    Target("generate", GENERATE, ("model", "rows.jsonl"), "out", clips_of),
    Target(
        "serve",
        SERVE,
        ("model", "voice.wav"),
        "out",
        served,
        main=page.main,
        midway=True,
        lacks="" if find_spec("gradio") else MISSING,
    ),
    Target("evaluate", EVALUATE, ("made",), "out", scored),
    Target("evaluate, controls", f"{EVALUATE} --controls", ("made",), "out", scored, slow=True),
    Target("evaluate merge", MERGE, ("scores",), "out", bytes_of),
    Target("study make", STUDY, ("made",), "out", bytes_of),
    Target("study read", READ, ("study", "answers.jsonl"), "out", bytes_of),
    Target("export", EXPORT, ("runs",), "out", bytes_of),
    Target("push", PUSH, ("model",), "out", bytes_of, "--card"),
)


def campaign(
    world: Path,
    folder: Path,
    seed: int,
    rounds: int,
    told: Callable[[str, Tally], None] = lambda name, tally: None,
    only: str = "",
    quick: bool = False,
) -> dict[str, Tally]:
    """Kill every target in `rounds` fresh folders, up to three times in each; tallies by target.

    Args:
        world: made by `faults.world.make`.
        folder: to work in.
        seed: of the moments.
        rounds: fresh folders a target.
        told: hears each tally when it is whole.
        only: targets whose name begins so.
        quick: none of the slow ones, and no moments of the clock, which come differently each time.
    """
    tallies = {}
    for target in (t for t in TARGETS if t.name.startswith(only) and not (quick and t.slow)):
        tallies[target.name] = tally = Tally(skipped=target.lacks)
        if target.lacks:
            told(target.name, tally)
            continue
        whole = copy(world, folder / "whole", *target.needs)
        undisturbed = run(target.command, whole, ranks=target.ranks, main=target.main)
        if undisturbed.status:
            tally.faults.append(f"undisturbed: {undisturbed.errors[-300:]}")
            told(target.name, tally)
            continue
        right = target.look(whole / target.leaves)
        for number in range(rounds):
            rng = random.Random(f"{seed} {target.name} {number}")
            tally.rounds += 1
            place = copy(world, folder / "killed", *target.needs)
            history: list[str] = []
            ways = ("at_change", "full_at") if quick else ("after",) if target.ranks > 1 else WAYS
            fault = _round(target, place, rng, ways, undisturbed, right, history, tally)
            if fault:
                tally.faults.append(f"round {number}, killed {', '.join(history)}: {fault}")
        told(target.name, tally)
    return tallies


def _round(
    target: Target,
    place: Path,
    rng: random.Random,
    ways: Sequence[str],
    undisturbed: Outcome,
    right: dict[str, Any],
    history: list[str],
    tally: Tally,
) -> str:
    """One folder: kills, then the command once more to its end. What is wrong, or nothing."""
    begun, own = False, (Path(target.leaves).parts[0], "tmp")
    before = seen(place, but=own)

    def go(**moment: Any) -> Outcome:
        command = f"{target.command} {target.again if begun else ''}"
        return run(command, place, ranks=target.ranks, main=target.main, **moment)

    for _ in range(rng.choice((1, 1, 2, 3))):
        way = rng.choice(ways)
        draw = rng.uniform(0, 1.1 * undisturbed.seconds) if way == "after" else rng.randrange(undisturbed.changes)
        moment: dict[str, Any] = {way: draw}
        ended = go(**moment)
        history.append(" ".join(f"{key} {value:.6g}" for key, value in moment.items()))
        if fault := _wrong(ended):
            return fault
        begun = begun or (place / target.leaves).exists()
        if ended.status == 0:
            break  # it ended before the moment came
        if way == "full_at" and ended.status > 0 and os.strerror(errno.ENOSPC) in ended.errors:
            tally.full += 1
        elif ended.status > 0:
            return f"was refused before it was killed: {ended.errors[-300:]}"
        else:
            tally.kills += 1
        if target.midway and (fault := _other(target, place, right, midway=True)):
            return fault
    ended = go()
    if fault := _wrong(ended):
        return fault
    if ended.status:
        return f"does not go on{f' with {target.again}' if begun and target.again else ''}: {ended.errors[-300:]}"
    left = [*place.rglob(".partial-*"), *(path for path in (place / "tmp").rglob("*") if path.is_file())]
    if left:
        return f"leaves {', '.join(str(path.relative_to(place)) for path in left[:5])}"
    after = seen(place, but=own)
    if moved := [path for path in {**before, **after} if before.get(path) != after.get(path)]:
        return f"changes {', '.join(moved[:5])}"
    return _other(target, place, right)


def _other(target: Target, place: Path, right: dict[str, Any], midway: bool = False) -> str:
    """How what is there differs from what an undisturbed command leaves; midway it may lack some."""
    try:
        found = target.look(place / target.leaves)
    except Exception as error:
        return f"leaves what cannot be read: {error}"
    keys = found.keys() - right.keys() if midway else found.keys() | right.keys()
    if other := sorted(str(key) for key in keys if right.get(key) != found.get(key)):
        return f"ends with other values than an undisturbed one: {', '.join(other[:5])}"
    return ""


def _wrong(ended: Outcome) -> str:
    """What no ending may have."""
    if ended.late:
        return "never ends"
    if ended.outside:
        return f"changes {', '.join(ended.outside[:5])}"
    if ended.orphans:
        return f"leaves {ended.orphans} processes at work"
    if ended.status < 0 and OURS not in ended.said:
        return ""
    if "Traceback (most recent call last)" in ended.said or "shows the traceback" in ended.said:
        return f"shows a traceback: {ended.errors[-400:]}"
    return ""
