"""A training in a process of its own, for tests that kill it or run it twice at once: `python driver.py FOLDER [options]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from fakes import FakeData, make_module  # noqa: E402
from lightning import Callback, Trainer  # noqa: E402
from lightning.pytorch.strategies import ModelParallelStrategy  # noqa: E402

from ccl.callbacks import EMA, LossLog, Monitor, SaveCheckpoint, TaskRouter, Throughput  # noqa: E402
from ccl.checkpoint import AtomicCheckpointIO  # noqa: E402
from ccl.run import RunFolder  # noqa: E402


class Kill(Callback):
    """Ends the process without a word at a batch, as a machine that fails does."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        if pl_module.batches == self.batch:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--save", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--size", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--interaction", default="cca")
    parser.add_argument("--kill", type=int, default=-1)
    parser.add_argument("--ckpt_path")
    args = parser.parse_args()
    torch.set_num_threads(1)

    run = RunFolder(args.folder.name, args.folder.parent)
    ckpt_path = run.open(
        {"interaction": args.interaction, "workers": args.workers, "seed_everything": 0}, args.ckpt_path
    )
    strategy = (
        ModelParallelStrategy(data_parallel_size=args.devices, tensor_parallel_size=1)
        if args.strategy == "fsdp"
        else args.strategy
    )
    callbacks = [
        TaskRouter(),
        EMA(0.9),
        Monitor(),
        Throughput(),
        LossLog(),
        SaveCheckpoint(every=args.save),
        Kill(args.kill),
    ]
    trainer = Trainer(
        accelerator="cpu",
        devices=args.devices,
        strategy=strategy,
        max_steps=args.steps,
        max_epochs=-1,
        accumulate_grad_batches=args.accumulate,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        plugins=[] if args.strategy == "fsdp" else [AtomicCheckpointIO()],
        default_root_dir=run.path,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        log_every_n_steps=2,
    )
    trainer.fit(
        make_module(args.interaction),
        datamodule=FakeData(args.size, args.workers),
        ckpt_path=ckpt_path,
        weights_only=True,
    )


if __name__ == "__main__":
    main()
