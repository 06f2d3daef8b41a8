"""What a verb builds from a name or from a part of a config."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
import torch.distributed as dist
from jsonargparse import ArgumentError, ArgumentParser

from ccl.cli.errors import UsageError, first_complaint, plain_words, read_yaml
from ccl.cli.own import reachable
from ccl.generation import Pipeline
from ccl.guidance import Guidance, NoGuidance, named
from ccl.model.dual_stream import DualStreamTransformer
from ccl.rows import SUFFIXES, Row
from ccl.types import Scale

PLACE = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))  # torchrun's variables, and a lone process's values


def pipeline_of(args: Any, device: str | None, **more: Any) -> Pipeline:
    """The model that --ckpt, --trust and --lora name.

    Args:
        args: a verb's.
        device: cpu or cuda; None is cuda where there is one.
        more: of `Pipeline.load`.
    """
    pipe = Pipeline.load(args.ckpt, device=device, trust=args.trust, **more)
    for path, scale in args.loras:
        pipe.load_lora(path, scale)
    return pipe


def guidance_of(
    name: str | None, scale: list[float] | None, modal: list[float] | None
) -> Callable[[Guidance], Guidance]:
    """What makes the guidance rule of that name, class or YAML file out of the model's own, with these strengths.

    Raises:
        UsageError: there is no such rule; or, when it is called, the rule has no such strength.
    """
    if name is not None and name.endswith((".yaml", ".yml")):
        if scale or modal:
            raise UsageError(f"{name} says its strengths itself; leave --scale and --modal out")
        with reachable([Path(name)]):
            rule = build(Guidance, read_yaml(Path(name)), name)
        return lambda own: rule
    strengths = {key: Scale(*pair) for key, pair in (("scale", scale), ("modal", modal)) if pair}
    rule = rule_of(name) if name is not None and "." in name else name

    def of(own: Guidance) -> Guidance:
        try:
            return named(rule, own, **strengths)
        except ValueError as error:
            raise UsageError(str(error)) from error

    if name is not None:
        of(NoGuidance())  # what does not depend on the model is told before it is read
    return of


def rule_of(name: str) -> type[Guidance]:
    """The guidance rule that is a class of that dotted name, as `mine.Rule` in the working directory.

    Raises:
        UsageError: it is not there, or is none.
    """
    with reachable([], also=[(name, "--guidance")]):
        found = resolve_name(name)
    if not (isinstance(found, type) and issubclass(found, Guidance)):
        raise UsageError(f"--guidance: {name} is no guidance rule, a subclass of ccl.guidance.Guidance")
    return found


def rows_of(folder: Path) -> list[Row]:
    """A row for each clip of a folder, with the prompt of the record that lies beside it, if one does.

    Raises:
        ValueError: the folder holds no clips.
    """
    rows = []
    clips = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    for path in sorted(clips):
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # none, or something else of that name
            record = {}
        prompt = record.get("prompt") if isinstance(record, dict) else None
        rows.append(Row(path.stem, prompt if isinstance(prompt, str) else ""))
    if not rows:
        raise ValueError(f"{folder} holds no clips ({', '.join(SUFFIXES)})")
    return rows


def device_of(name: str | None) -> str | None:
    """A torch device that is there.

    Raises:
        UsageError: it is not, or there is no such kind.
    """
    if name is None or name == "cpu":
        return name
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # the second: a torch that has no CUDA in it
        raise UsageError(f"--device is {name}, which this machine or this torch does not have") from error
    return name


def share_of(device: str | None) -> tuple[tuple[int, int], str | None]:
    """Which of how many processes this is, as torchrun says it, and its own GPU where it works on one.

    Raises:
        UsageError: RANK and WORLD_SIZE do not fit each other; there are fewer GPUs than processes on this machine.
    """
    rank, size, local = (int(os.environ.get(name, usual)) for name, usual in PLACE)
    if not 0 <= rank < size:
        raise UsageError(f"RANK is {rank} and WORLD_SIZE {size}; a rank is from 0 to the size less 1")
    if size > 1 and device in (None, "cuda") and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise UsageError(f"this is process {local} of this machine, which has {torch.cuda.device_count()} GPUs")
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    return (rank, size), device


@contextmanager
def sharing(net: DualStreamTransformer, count: int, share: tuple[int, int]) -> Iterator[tuple[tuple[int, int], bool]]:
    """Within it, `count` processes at a time make each clip together, its video tokens split over them.

    Args:
        net: each process's own.
        count: of processes that share a clip; 1 leaves each its own clips.
        share: which of how many processes this is.

    Yields:
        Which of how many groups this process is of; whether it is the one that writes for its group.

    Raises:
        UsageError: the processes do not divide into such groups, or the network's heads among them.
    """
    rank, size = share
    if count == 1:
        yield share, True
        return
    if size % count:
        raise UsageError(
            f"--context is {count}, and there {'are' if size > 1 else 'is'} {size} process{'es' * (size > 1)}; start "
            f"a multiple of {count}, as torchrun --nproc-per-node {count} does"
        )
    device = next(net.parameters()).device
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        groups = [dist.new_group(list(range(first, first + count))) for first in range(0, size, count)]
        try:
            net.split_over(groups[rank // count])
        except ValueError as error:
            raise UsageError(f"--context {count}: {error}") from error
        yield (rank // count, size // count), rank % count == 0
    finally:
        dist.destroy_process_group()


def build(base: Any, node: Any, where: str) -> Any:
    """An object of a class below `base` from class_path and init_args; of Callable[[...], base] what makes one; of a
    type of plain values a value.

    Raises:
        UsageError: it cannot be made of these; `where`, a file or a key, stands before why.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=base)
    try:
        return parser.instantiate_classes(parser.parse_object({"part": deepcopy(node)})).part  # which it changes
    except (ArgumentError, ValueError) as error:  # the parser's, or the class's own
        said = re.sub(r'^Parser key "part":\s*', "", first_complaint(str(error), error)[0])  # the word is ours
        raise UsageError(f"{where}: {plain_words(said)}") from error
