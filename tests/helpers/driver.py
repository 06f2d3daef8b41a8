"""Trainings in processes of their own, for tests that kill one or run two at once: `python driver.py SPEC.json`.

The spec is a list of runs, made one after the other, each in processes forked from this one: the imports, which cost
more than the training, are paid once. Exit statuses of all processes are printed as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from lightning import Callback, Trainer  # noqa: E402
from lightning.pytorch.strategies import ModelParallelStrategy  # noqa: E402

from ccl.callbacks import (  # noqa: E402
    EMA,
    LossLog,
    Monitor,
    Preview,
    SaveCheckpoint,
    StopOnSignal,
    TaskRouter,
    Throughput,
)
from ccl.model.adapter import LoRA  # noqa: E402
from ccl.storage.checkpoint import AtomicCheckpointIO  # noqa: E402
from ccl.storage.run import RunFolder  # noqa: E402
from helpers.fakes import FakeData, make_module, model_config, shard_data  # noqa: E402


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
    save: int = 3,
    accumulate: int = 1,
    strategy: str = "auto",
    ranks: int = 1,
    interaction: str = "cca",
    layers: int = 2,
    kill: int = -1,
    stop: int = -1,
    ckpt_path: str | None = None,
    preview: bool = False,
    lora: bool = False,
) -> None:
    """One run; the last losses go to its losses.jsonl."""
    config = {**model_config(interaction, layers), "workers": workers, "seed_everything": 0}
    run = RunFolder(Path(folder).name, Path(folder).parent)
    start = run.open(config, ckpt_path)
    sharded = ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1)
    callbacks: list[Callback] = [
        TaskRouter(),
        EMA(0.9),
        Monitor(),
        Throughput(),
        LossLog(),
        SaveCheckpoint(every=save),
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
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        log_every_n_steps=2,
    )
    data = FakeData(size) if shards is None else shard_data(Path(shards), workers, size)
    trainer.ckpt_path = start  # as `ccl fit` does
    module = make_module(interaction, layers, lora=LoRA(rank=2) if lora else None)
    trainer.fit(module, datamodule=data, weights_only=True)


def fork(options: dict[str, Any], rank: int, port: int) -> int:
    """A process for one rank of a run; its id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        if options.get("ranks", 1) > 1:  # as Lightning's own launcher would set them
            place = {"NODE_RANK": "0", "LOCAL_RANK": str(rank), "WORLD_SIZE": str(options["ranks"])}
            os.environ.update(place, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
        train(**options)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(children: list[int]) -> list[int]:
    """Their exit statuses; when one fails the others, which would wait for it for ever, are ended."""
    done: dict[int, int] = {}
    while len(done) < len(children):
        child, status = os.waitpid(-1, 0)
        done[child] = os.waitstatus_to_exitcode(status)
        if done[child]:
            for other in set(children) - done.keys():
                os.kill(other, signal.SIGKILL)
    return [done[child] for child in children]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main() -> None:
    torch.set_num_threads(1)
    statuses = []
    for options in json.loads(Path(sys.argv[1]).read_text()):
        port = free_port()
        children = [fork(options, rank, port) for rank in range(options.get("ranks", 1))]
        statuses.append(wait(children))
    Path(sys.argv[1]).with_suffix(".out").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main()
