"""Damaged inputs: each is used, or refused in one sentence that names it; nothing else is touched."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import yaml

from faults.mutate import (
    Damage,
    agreed,
    in_bytes,
    in_cells,
    in_header,
    in_json,
    in_lines,
    in_members,
    in_state,
    in_yaml,
    nodes_of,
)
from faults.process import Outcome, run
from faults.world import (
    CAPTION,
    ENCODE,
    EVALUATE,
    EXPORT,
    FIT,
    GENERATE,
    JOINT,
    MAKE,
    MERGE,
    OVERLAY,
    PUSH_RUN,
    READ,
    SMALL,
    STUDY,
    copy,
    seen,
)

MOST = 3 * 2**30  # bytes of memory that a small input may take; the imports alone are half a gigabyte


@dataclass(frozen=True)
class Input:
    """A kind of input and the command that reads it.

    Args:
        name: in the table.
        needs: what of the world it lies in.
        path: of the damaged file, in the folder.
        ways: how it is damaged.
        command: that reads it, without `ccl`.
        named: words of which a refusal must hold one, beside the file's own name.
        vouched: a sum says what its bytes are, so that other ones are never used.
    """

    name: str
    needs: tuple[str, ...]
    path: str
    ways: tuple[Damage, ...]
    command: str
    named: tuple[str, ...] = ()
    vouched: bool = False


@dataclass
class Tally:
    """Of one kind of input: how its mutants ended."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


# Inputs -------------------------------------------------------------------------------------------------------------

RESUME = f"{FIT} --name run --ckpt_path last --trainer.max_steps 9"
NEW = f"{FIT} --name new --trainer.max_steps 2 --trainer.accelerator cpu"
ONE = "generate --ckpt model --prompt hello -o out/a.mp4 --steps 1 --device cpu"
SCORE = EVALUATE.replace("-o out", "-o scores")
KEEP = CAPTION.replace("-o out", "-o captions")
TAR = "shard-000000.tar"
KEYS = {
    path for text in (Path(JOINT).read_text(), OVERLAY) for _, _, path in nodes_of(yaml.safe_load(text)) if "." in path
}
OWN, RUN = ("small.yaml", "latents"), ("runs", "latents", "small.yaml")
CHECKPOINT = "runs/run/checkpoints/last.ckpt"
INPUTS = (
    Input("mp4, made into shards", ("clips", "captions.csv"), "clips/clip0.mp4", (in_bytes,), MAKE, ("clip0",)),
    Input("mp4, scored", ("made",), "made/row0.mp4", (in_bytes,), EVALUATE, ("row0",)),
    Input("wav, given", ("model", "voice.wav"), "voice.wav", (in_bytes,), f"{ONE} --audio voice.wav"),
    Input("png, given", ("model", "first.png"), "first.png", (in_bytes,), f"{ONE} --image first.png"),
    Input("captions, CSV", ("clips", "captions.csv"), "captions.csv", (in_bytes, in_cells, in_cells), MAKE),
    Input(
        "captions, gone on with",
        ("clips", "mine.py", "captions"),
        "captions/captions.jsonl",
        (in_bytes, in_lines),
        KEEP,
    ),
    Input("prompts, JSONL", ("model", "rows.jsonl"), "rows.jsonl", (in_bytes, in_lines, in_lines), GENERATE),
    Input("results of another lab", ("scores",), "scores/results.json", (in_bytes, in_json, in_json), MERGE),
    Input("test set", ("made", "rows.jsonl"), "rows.jsonl", (in_bytes, in_lines), f"{EVALUATE} --testset rows.jsonl"),
    Input("index", ("shards", "small.yaml"), "shards/index.json", (in_bytes, in_json, in_json), ENCODE, ("in shards",)),
    Input("tar, encoded", ("shards", "small.yaml"), f"shards/{TAR}", (in_bytes, in_members), ENCODE, vouched=True),
    Input(
        "tar and index, encoded",
        ("shards", "small.yaml"),
        f"shards/{TAR}",
        (agreed(in_bytes), agreed(in_members), agreed(in_members)),
        ENCODE,
        ("clip0", "clip1"),
    ),
    Input(
        "tar, trained on",
        OWN,
        f"latents/{TAR}",
        (in_bytes, agreed(in_bytes), agreed(in_members)),
        NEW,
        ("clip0", "clip1"),
    ),
    Input("config, planned", ("small.yaml",), "small.yaml", (in_bytes, in_yaml, in_yaml), f"plan {SMALL}"),
    Input("config, trained", OWN, "small.yaml", (in_yaml,), NEW),
    Input("run's config, exported", ("runs",), "runs/run/config.yaml", (in_bytes, in_yaml, in_yaml), EXPORT),
    Input("run's config, pushed", ("runs",), "runs/run/config.yaml", (in_yaml,), PUSH_RUN),
    Input("run.json, exported", ("runs",), "runs/run/run.json", (in_bytes, in_json), EXPORT),
    Input("run.json, resumed", RUN, "runs/run/run.json", (in_bytes, in_json), RESUME),
    Input("checkpoint, exported", ("runs",), CHECKPOINT, (in_bytes, in_state), EXPORT, (".ckpt",), vouched=True),
    Input("checkpoint, resumed", RUN, CHECKPOINT, (in_bytes, in_state), RESUME, (".ckpt",), vouched=True),
    Input("losses, resumed", RUN, "runs/run/losses.jsonl", (in_bytes, in_lines), RESUME),
    Input("model's config", ("model",), "model/config.yaml", (in_bytes, in_yaml, in_yaml), ONE),
    Input("model's weights", ("model",), "model/model.safetensors", (in_bytes, in_header), ONE, vouched=True),
    Input(
        "record of a clip",
        ("model", "rows.jsonl", "made"),
        "made/row0.json",
        (in_bytes, in_json),
        GENERATE.replace("-o out", "-o made"),
        ("row0",),
    ),
    Input("scores so far", ("made", "scores"), "scores/scores.jsonl", (in_bytes, in_lines), SCORE),
    Input("state of scores", ("made", "scores"), "scores/state.json", (in_bytes, in_json), SCORE),
    Input("study, mp4", ("made",), "made/row0.mp4", (in_bytes,), STUDY, ("row0",)),
    Input("study, answers", ("study", "answers.jsonl"), "answers.jsonl", (in_bytes, in_lines, in_lines), READ),
    Input(
        "study, key",
        ("study", "answers.jsonl"),
        "study/key.json",
        (in_bytes, in_json, in_json),
        READ,
        ("answers.jsonl",),
    ),
)


def campaign(
    world: Path,
    folder: Path,
    seed: int,
    count: int,
    told: Callable[[str, Tally], None] = lambda name, tally: None,
    only: str = "",
) -> dict[str, Tally]:
    """`count` mutants of every kind of input whose name begins with `only`; tallies by kind."""
    tallies = {}
    for kind in (kind for kind in INPUTS if kind.name.startswith(only)):
        tallies[kind.name] = tally = Tally()
        for number in range(count):
            rng = Random(f"{seed} {kind.name} {number}")
            place = copy(world, folder / "mutant" / "inside", *kind.needs)
            whole = (place / kind.path).read_bytes()
            how = rng.choice(kind.ways)(place / kind.path, rng)
            other = how.startswith("bytes") and (place / kind.path).read_bytes() != whole
            before = seen(place.parent, but=("out", "new", "tmp"))
            ended = run(kind.command, place, timeout=40)
            # A config of the user's own is named, or the key in it that was changed. What is left of it may be a whole
            # config that asks for what does not fit; then a key to change is named, by its path.
            changed = how.split()[0].rpartition(".")[2]
            keys = KEYS | ({changed} - set("0123456789")) if kind.path == "small.yaml" else set()
            end, fault = _judged(kind, ended, keys)
            if end == "used" and kind.vouched and other:
                fault = "is used, though its bytes are others"
            moved = {
                path
                for path, stamp in seen(place.parent, but=("out", "new", "tmp")).items()
                if before.get(path) != stamp
            }
            # What a command writes beside its input on purpose lies in the folder it was given; a config without `data`
            # trains on the world, which lies in data/world.
            allowed = ("captions", "made", "scores", "runs", "data")
            outside = [path for path in moved if path.split("/")[1:2] and path.split("/")[1] not in allowed]
            outside += [str(path) for path in Path("/").glob("absolute*")]
            if outside:
                fault = fault or f"wrote {', '.join(outside[:3])}"
            tally.ends["FAULT" if fault else end] += 1
            if fault:
                tally.faults.append(f"number {number}, {how[:100]}: {fault}")
        told(kind.name, tally)
    return tallies


def _judged(kind: Input, ended: Outcome, keys: set[str]) -> tuple[str, str]:
    """How a mutant ended, and what is wrong with that."""
    last = ended.errors.strip().splitlines()[-1] if ended.errors.strip() else ""
    if ended.late:
        return "", f"never ends: {last[:200]}"
    if ended.status < 0:
        return "", f"died of signal {-ended.status}"
    if "Traceback (most recent call last)" in ended.said or "shows the traceback" in ended.said:
        return "", f"shows a traceback: {last[:300]}"
    if ended.peak > MOST:
        return "", f"took {ended.peak / 2**30:.1f} GiB: {last[:200]}"
    if ended.orphans:
        return "", f"leaves {ended.orphans} processes at work"
    if ended.status == 0:
        return "used", ""
    named = any(word in ended.said for word in (*kind.named, Path(kind.path).name))
    if not named and not any(re.search(rf"\b{re.escape(key)}\b", last) for key in keys):
        return "", f"does not name {Path(kind.path).name}: {last[:300]}"
    return "refused", ""
