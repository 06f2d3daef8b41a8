"""A process that measures one mode of one config: `python -m ccl.bench.worker ORDER.json`, which says what and where.

It is a process of its own, so that each mode starts with empty memory and Lightning can start others like it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from ccl.bench.sampled import sample
from ccl.bench.subject import KEPT
from ccl.bench.timed import Timed
from ccl.cli.fit import USELESS_WARNINGS, FitCLI, quiet
from ccl.cli.machine import cpu_name, memory
from ccl.files.whole import write_whole


class BenchCLI(FitCLI):
    """Builds what `ccl fit` builds; nothing is written.

    Args:
        argv: the command line of the config.
        timed: looks on.
    """

    def __init__(self, argv: list[str], timed: Timed) -> None:
        self.timed = timed
        super().__init__(argv)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [c for c in callbacks if isinstance(c, KEPT)] + [self.timed]
        return trainer


def train(order: dict[str, Any]) -> dict[str, Any] | None:
    """Steps of training, as the callback saw them; None in a process that others answer for."""
    timed = Timed(order["profiled"])
    begun = time.perf_counter()
    cli = BenchCLI(["--config", order["config"]], timed)
    if cli.model.image is not None:  # what it would say of a picture comes with the batch
        cli.model.show = lambda batch: batch.extras["image"]
    peak = None if order["memory"] else products(cli.trainer.strategy.root_device)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    if not cli.trainer.is_global_zero:
        return None
    return {
        "device": device_of(cli.trainer.strategy.root_device),
        "processes": cli.trainer.world_size,
        "threads": torch.get_num_threads(),
        "products": peak,
        "started": timed.begun - begun,
        "steps": timed.steps,
        "memory": timed.memory,
        "kernels": timed.kernels,
    }


def device_of(device: torch.device) -> dict[str, Any]:
    """What is told of a device."""
    if device.type == "cuda":
        told = torch.cuda.get_device_properties(device)
        return {"type": "cuda", "name": told.name, "memory": told.total_memory}
    return {"type": device.type, "name": cpu_name(), "memory": memory()}


def products(device: torch.device) -> float | None:
    """FLOPs a second of a large float32 product on a CPU, which has no data sheet; the fastest of several."""
    if device.type != "cpu":
        return None
    a, b = torch.randn(2, 1024, 1024)
    fastest = float("inf")
    for _ in range(8):
        begun = time.perf_counter()
        a @ b
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * 1024**3 / fastest


def main(argv: list[str]) -> int:
    """Measure, and write what came out."""
    order = json.loads(Path(argv[0]).read_text())
    sys.path += [folder for folder in order["path"] if folder not in sys.path]
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(quiet)
    for message in USELESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    found = sample(order) if order["generate"] else train(order)
    if found is not None:
        write_whole(Path(order["out"]), json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
