"""A training that may be killed at a batch, or sent a signal; `trainings.train_all` calls it in others."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from ccl.callbacks import (
    EMA,
    LossLog,
    Monitor,
    Preview,
    SaveCheckpoint,
    StopOnSignal,
    TaskRouter,
    Throughput,
)
from ccl.model.adapter import LoRA
from ccl.storage.checkpoint import AtomicCheckpointIO
from ccl.storage.run import RunFolder
from helpers.fakes import GRID, WIDE, FakeData, make_module, model_config, shard_data


class Send(Callback):
    """Sends a signal to a process of the run in the midst of a batch: SIGKILL ends it as a machine that fails does."""

    def __init__(self, batch: int, number: int, rank: int | None = None) -> None:
        self.batch, self.number, self.rank = batch, number, rank

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        if pl_module.batches == self.batch and self.rank in (None, trainer.global_rank):
            os.kill(os.getpid(), self.number)


def train(
    folder: str,
    *,
    shards: str | None = None,
    size: int = 4,
    workers: int = 0,
    steps: int = 8,
    save: int | None = 3,
    accumulate: int = 1,
    strategy: str = "auto",
    ranks: int = 1,
    context: int = 1,
    wide: bool = False,
    interaction: str = "cca",
    layers: int = 2,
    kill: int = -1,
    stop: int = -1,
    ckpt_path: str | None = None,
    preview: bool = False,
    lora: bool = False,
    per: Literal["batch", "sample"] = "batch",
    quota: dict[str, int] | None = None,
) -> None:
    """One run; the last losses go to its losses.jsonl."""
    grid = WIDE if wide else GRID
    config = {**model_config(interaction, layers, grid), "workers": workers, "seed_everything": 0}
    adapters = LoRA(rank=2) if lora else None
    if adapters is not None:
        config["model"]["lora"] = {"rank": adapters.rank, "alpha": adapters.alpha}
    run = RunFolder(Path(folder).name, Path(folder).parent)
    start = run.open(config, ckpt_path)
    sharded = ModelParallelStrategy(data_parallel_size=ranks // context, tensor_parallel_size=context)
    callbacks: list[Callback] = [
        TaskRouter(per),
        EMA(0.9),
        Monitor(),
        Throughput(),
        LossLog(),
        *([] if save is None else [SaveCheckpoint(every=save)]),
        Send(kill, signal.SIGKILL),
        Send(stop, signal.SIGTERM, rank=ranks - 1),
        StopOnSignal(),
    ]
    if preview:
        callbacks.append(Preview(["a bell"], every=steps, steps=1))
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=sharded if strategy == "fsdp" else strategy,
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.path,
        use_distributed_sampler=False,
        enable_checkpointing=save is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        log_every_n_steps=2,
    )
    data = FakeData(size) if shards is None else shard_data(Path(shards), workers, size, quota, grid)
    trainer.ckpt_path = start  # as `ccl fit` does
    module = make_module(interaction, layers, grid, lora=adapters)
    trainer.fit(module, datamodule=data, weights_only=True)
