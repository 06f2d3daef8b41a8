"""A callback that times the parts of a step and asks the machine for memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ccl.types import Batch

PARTS = ("data", "forward", "backward", "update")
PROC = Path("/proc/self")
WRAPPER = "autograd::engine"  # what calls the operations that are told themselves


class Gauge:
    """Bytes that this process holds on its device, above what it held when this was made; None where none can tell.

    On a GPU what torch has allocated, on a CPU what is resident, libraries' own left out by having them work first.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda, self.told = device.type == "cuda", True
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(device)
        elif (PROC / "statm").is_file():
            wake()
            (PROC / "clear_refs").write_text("5")  # the peak is counted from here
        else:
            self.told = False
        self._before = self._now()

    def _now(self) -> int:
        if self.cuda:
            return torch.cuda.memory_allocated()
        return status("VmRSS") if self.told else 0

    def now(self) -> int | None:
        return self._now() - self._before if self.told else None

    def peak(self) -> int | None:
        if not self.told:
            return None
        return (torch.cuda.max_memory_allocated() if self.cuda else status("VmHWM")) - self._before


def status(name: str) -> int:
    """A size out of what Linux tells of this process, in bytes."""
    (line,) = (line for line in (PROC / "status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def wake() -> None:
    """Let the CPU's libraries make what they keep: threads, kernels, caches."""
    with torch.inference_mode(False), torch.enable_grad():
        _wake()


def _wake() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64))
    optimizer = torch.optim.AdamW(net.parameters())
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            q = net(torch.randn(64, 64)).reshape(1, 2, 32, 64)
            nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    optimizer.step()


class Timed(Callback):
    """Seconds of each step's parts: handing over the batch, forward, backward, and the update (clipping, AdamW, the
    average). It stands last, so that others' work in a hook counts for what ends there.

    Args:
        profiled: which step is looked at by torch's profiler, and not among those that are timed; None for none.
    """

    def __init__(self, profiled: int | None = None) -> None:
        self.profiled = profiled
        self.begun = 0.0
        self.steps: list[dict[str, Any]] = []
        self.memory: dict[str, int | None] = {}
        self.kernels: list[dict[str, Any]] = []
        self._step: dict[str, float] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.begun = time.perf_counter()
        self.device = trainer.strategy.root_device
        self.gauge = Gauge(self.device)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.memory["built"] = self.gauge.now()
        self._last = self._clock()

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _mark(self, part: str) -> None:
        now = self._clock()
        self._step[part] = now - self._last
        self._last = now

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._mark("data")
        if batch_idx == self.profiled:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
            self.profiler = profile(activities=activities)
            self.profiler.start()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        self._mark("forward")

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self._mark("backward")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self._mark("update")
        if batch_idx == self.profiled:
            self.profiler.stop()
            self.kernels = kernels(self.profiler, self.device)
        else:
            self.steps.append({**self._step, "tasks": outputs["shares"]})
            self.memory |= {"kept": self.gauge.now(), "peak": self.gauge.peak()}
        self._last = self._clock()


def kernels(profiler: profile, device: torch.device, most: int = 12) -> list[dict[str, Any]]:
    """What a step's time went into, the largest first: on a GPU its kernels, on a CPU torch's operations. Those of
    attention are told however small."""
    cuda = device.type == "cuda"
    found = [
        {
            "name": event.key,
            "calls": event.count,
            "seconds": (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6,
        }
        for event in profiler.key_averages()
    ]
    found = sorted(
        (one for one in found if one["seconds"] and not one["name"].startswith(WRAPPER)),
        key=lambda one: -one["seconds"],
    )
    whole = sum(one["seconds"] for one in found)
    named = [one for i, one in enumerate(found) if i < most or attends(one["name"])]
    return [{**one, "share": one["seconds"] / whole} for one in named]


def attends(name: str) -> bool:
    """Whether a kernel or an operation is attention's."""
    return any(word in name.lower() for word in ("attention", "flash", "fmha", "sdpa"))
