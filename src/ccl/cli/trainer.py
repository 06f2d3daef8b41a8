"""What the keys of Lightning's Trainer may be, looked at before anything is built.

Lightning takes most numbers in silence, also those with which nothing is trained, and of others says no more than its
own argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ccl import arguments
from ccl.arguments import MOST
from ccl.cli.errors import UsageError

DEVICES = 1024  # of one machine; beyond is a slip, of which Lightning makes a list


class Fits(NamedTuple):
    """Numbers that a key takes.

    Args:
        least: of them.
        whole: whether only whole ones.
        also: what Lightning gives a meaning of its own.
        most: of them.
    """

    least: int
    whole: bool = True
    also: tuple[int | None, ...] = ()
    most: int = MOST


NUMBERS = {
    "max_steps": Fits(1, also=(-1,)),  # without an end
    "min_steps": Fits(0, also=(None,)),
    "max_epochs": Fits(1, also=(-1, None)),
    "min_epochs": Fits(0, also=(None,)),
    "num_nodes": Fits(1, most=1_000_000),
    "accumulate_grad_batches": Fits(1),
    "gradient_clip_val": Fits(0, whole=False, also=(None,)),  # null and 0 do not clip
    "log_every_n_steps": Fits(1, also=(None,)),
    "check_val_every_n_epoch": Fits(1, also=(None,)),
    "num_sanity_val_steps": Fits(0, also=(-1, None)),
}
# Where 0 is what Lightning divides by, or trains nothing with; it refuses the rest itself.
NOT_ZERO = ("val_check_interval", "limit_train_batches")


def check(trainer: Mapping[str, Any]) -> None:
    """UsageError, naming the key, where a training could not be what a value says."""
    try:
        for key, fits in NUMBERS.items():
            if trainer[key] not in fits.also:
                arguments.number(f"trainer.{key}", trainer[key], fits.least, fits.most, whole=fits.whole)
        for key in NOT_ZERO:
            if trainer[key] == 0:
                raise ValueError(f"trainer.{key} is 0; it must be above 0")
        named_devices(trainer["devices"])
    except ValueError as error:
        raise UsageError(str(error)) from error


def context_of(strategy: Any, devices: int) -> int:
    """How many processes share a clip's video tokens: the second axis of Lightning's mesh, which it calls by another
    name (`ccl.training.fsdp.Ranks`).

    Args:
        strategy: `trainer.strategy`.
        devices: of one machine, Lightning's `auto`.
    """
    if not isinstance(strategy, Mapping) or not str(strategy["class_path"]).endswith("ModelParallelStrategy"):
        return 1
    size = (strategy.get("init_args") or {}).get("tensor_parallel_size", "auto")
    return devices if size == "auto" else int(size)


def named_devices(given: Any) -> int | list[int] | None:
    """What `trainer.devices` asks for: how many, the places of some, or None for all that are here.

    Raises:
        ValueError: nothing that there could be.
    """
    word = given.strip() if isinstance(given, str) else given
    if word in ("auto", "-1", -1):
        return None
    some = word.strip(",").split(",") if isinstance(word, str) and "," in word else word
    try:
        places = [int(x) for x in some] if isinstance(some, list) else int(some)
    except (TypeError, ValueError, OverflowError):
        places = -1
    least, counts = (0, places) if isinstance(places, list) else (1, [places])
    if not counts or not all(least <= n <= DEVICES for n in counts) or len(set(counts)) < len(counts):
        said = given if isinstance(given, list) else arguments.described(given)
        raise ValueError(
            f"trainer.devices is {said}; it must be auto, "
            f"a whole number from 1 to {DEVICES:,}, or a list of different GPUs counted from 0"
        )
    return places
