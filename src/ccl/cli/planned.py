"""A config of `ccl fit` as `ccl plan` reads it: its network, its tasks, its clips a step, its processes, its memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ccl import planning
from ccl.cli.errors import UsageError
from ccl.cli.fit import resolve
from ccl.cli.parts import build
from ccl.cli.trainer import context_of, named_devices
from ccl.grid import Grid
from ccl.guidance import Guidance
from ccl.model.adapter import Freeze, LoRA, freeze, frozen
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.quantized import Quantization, check_quantization, quantize
from ccl.model.recompute import Checkpointing
from ccl.spelling import counted
from ccl.tasks import PAPER_TASKS, Task, check
from ccl.text.base import TextEncoder, check_width
from ccl.types import View

HOW: dict[Checkpointing, str] = {
    False: "activations kept",
    True: "checkpointed",
    "attention": "checkpointed but for attention",
}


def devices_of(given: Any, accelerator: str = "auto") -> int:
    """How many devices of a machine Lightning takes: a number or its text, a list of them, all that are here."""
    asked = named_devices(given)
    if asked is None:
        return max(1, torch.cuda.device_count()) if accelerator != "cpu" else 1
    return len(asked) if isinstance(asked, list) else asked


@dataclass(frozen=True)
class Planned:
    """What of a resolved config a plan reads.

    Args:
        config: as `ccl fit --print_config` prints it.
        grid: of its clips.
    """

    config: dict[str, Any]
    grid: Grid

    @property
    def lora(self) -> LoRA | None:
        given = self.config["model"].get("lora")
        return LoRA(given["rank"], given["alpha"], tuple(given["parts"])) if given else None

    @property
    def freeze(self) -> Freeze | None:
        """What does not train; adapters train in the place of the backbones."""
        return frozen(self.config["model"].get("freeze"), self.lora)

    @property
    def tasks(self) -> dict[str, Task]:
        rows = self.config["model"]["tasks"]
        tasks = dict(PAPER_TASKS if rows is None else tasks_of(json.dumps(rows)))
        check(tasks)
        return tasks

    @property
    def checkpointing(self) -> Checkpointing:
        return self.config["model"]["net"]["init_args"]["checkpointing"]

    @property
    def bf16(self) -> bool:
        return str(self.config["trainer"]["precision"]).startswith("bf16")

    @property
    def bytes_each(self) -> int:
        """Of a weight as it trains."""
        return 2 if str(self.config["trainer"]["precision"]).endswith("16-true") else 4

    @property
    def quantized(self) -> Quantization | None:
        """In what the frozen matrices of the video stream's blocks are kept."""
        return self.config["model"].get("quantize")

    @property
    def bits(self) -> int | None:
        """Of a number of AdamW's moments, where they are narrower than a weight."""
        return self.config["model"]["optimizer"].get("bits")

    @property
    def ema(self) -> bool:
        return any(c["class_path"].endswith(".EMA") for c in self.config["trainer"]["callbacks"] or [])

    @property
    def sharded(self) -> bool:
        return "ModelParallel" in str(self.config["trainer"]["strategy"])

    @property
    def batch(self) -> int:
        """Clips on a GPU at a time."""
        return int(self.config["data"]["init_args"].get("batch_size") or 1)

    @property
    def processes(self) -> int:
        """How many `ccl fit` runs: devices by machines, as Lightning counts them."""
        trainer = self.config["trainer"]
        return devices_of(trainer["devices"], trainer["accelerator"]) * int(trainer["num_nodes"])

    @property
    def accumulated(self) -> int:
        return int(self.config["trainer"]["accumulate_grad_batches"])

    @property
    def global_batch(self) -> int:
        """Clips of an optimizer step, as `ccl fit` prints it."""
        return self.batch * self.processes // self.context * self.accumulated

    @property
    def context(self) -> int:
        """How many processes share a clip's video tokens."""
        trainer = self.config["trainer"]
        return context_of(trainer["strategy"], self.processes // int(trainer["num_nodes"]))

    def check(self) -> None:
        """UsageError where the training would not start, or not shard, as the config has it."""
        if self.quantized is not None:
            try:
                check_quantization(self.quantized, self.freeze, sharded=self.sharded, averaged=self.ema)
            except ValueError as error:
                raise UsageError(str(error)) from error
        strategy = self.config["trainer"]["strategy"]
        if not self.sharded:
            return
        given = (strategy.get("init_args") or {}) if isinstance(strategy, dict) else {}
        nodes = int(self.config["trainer"]["num_nodes"])
        sizes = [given.get(f"{name}_parallel_size", "auto") for name in ("data", "tensor")]
        # Lightning's `auto` would have all processes of a machine share each clip, unasked.
        if "auto" in sizes or int(sizes[0]) * int(sizes[1]) != self.processes:
            context = 1 if sizes[1] == "auto" or self.processes % int(sizes[1]) else int(sizes[1])
            raise UsageError(
                f"data_parallel_size {sizes[0]} by tensor_parallel_size {sizes[1]} does not use {self.processes} "
                f"processes ({self.processes // nodes} devices, {nodes} machines), of which the second number share "
                "each clip's video tokens: give "
                f"--trainer.strategy.init_args.data_parallel_size {self.processes // context} "
                f"--trainer.strategy.init_args.tensor_parallel_size {context}"
            )

    def stored_bytes(self, net: DualStreamTransformer, text: TextEncoder) -> tuple[int, int]:
        """Bytes in bfloat16 of a clip's latents, and of its text states at full length; none where they train."""
        grid = self.grid
        video = 0 if net.ends.video is None else net.channels.video * grid.t_v * grid.latent_height * grid.latent_width
        audio = 0 if net.ends.audio is None else net.channels.audio * grid.t_a
        return 2 * (video + audio), 2 * text.length * text.dim * (not list(text.parameters()))

    def make(self) -> DualStreamTransformer:
        """The network, frozen and adapted as it trains."""
        net = build(DualStreamTransformer, self.config["model"]["net"], "model.net")
        if self.lora is not None:
            self.lora.adapt(net)
        freeze(self.freeze, net, torch.nn.Module())
        return net if self.quantized is None else quantize(net, self.quantized)

    def text(self) -> TextEncoder:
        text = build(TextEncoder, self.config["model"]["text"], "model.text")
        return text.requires_grad_(False) if self.freeze else text


@lru_cache(maxsize=32)
def tasks_of(rows: str) -> dict[str, Task]:
    """Tasks from a table of them as JSON: plans of one training ask for the same ones many times."""
    return build(dict[str, Task], json.loads(rows), "model.tasks")


def planned_of(argv: list[str]) -> Planned:
    """The plan's view of what `ccl fit` would read from a command line.

    Raises:
        UsageError: a key is wrong, the grid does not suit the codec, or the processes do not suit the strategy.
    """
    config = resolve(argv)
    planned = Planned(config, Grid(**config["grid"]))
    planned.check()
    return planned


def not_here(file: Path) -> str:
    """What of its system a stack does not hold, as the comment at the head of its file says after "Not here:"; up to
    what stands in its place, or to the end of the sentence. "" where it says nothing."""
    lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    found = re.search(r"Not here: (.+?)(?:; so |\.(?: |$))", " ".join(line.strip("# ") for line in lines))
    return found[1] if found else ""


class Model(NamedTuple):
    """What a plan reads of a model that is built without storage.

    Args:
        sizes: parameters by part.
        ends: parameters outside the blocks.
        short: the network.
        text: the text encoder.
    """

    sizes: dict[str, planning.Size]
    ends: int
    short: planning.Short
    text: TextEncoder


def made(planned: Planned) -> str:
    """What of a config its network and text encoder follow from."""
    model = planned.config["model"]
    return json.dumps({key: model.get(key) for key in ("net", "text", "lora", "freeze", "quantize")}, default=str)


class Needs:
    """What trainings and clips take, each network followed once however many plans share it, and each kind of clip.

    Args:
        told: hears how many things have been followed, of how many so far, and which is next.
    """

    def __init__(self, told: Callable[[int, int, str], None] = lambda done, of, now: None) -> None:
        self._told, self._done = told, 0
        self._models: dict[str, Model] = {}
        self._forwards: dict[Hashable, planning.Table] = {}
        self._peaks: dict[Hashable, int] = {}
        self._clips: dict[Hashable, planning.Clip] = {}

    def tell(self, now: str) -> None:
        """Say what is followed next."""
        self._told(self._done, self._done + 1, now)
        self._done += 1

    def model(self, planned: Planned) -> Model:
        """The model; nothing is allocated."""
        key = made(planned)
        if key not in self._models:
            self.tell("parameters")
            with torch.device("meta"):
                net, text = planned.make(), planned.text()
            check_width(text, net.text_dim)
            sizes, ends = planning.parameters(net, text), planning.ends_of(net)
            self._models[key] = Model(sizes, ends, planning.shorten(net), text)
        return self._models[key]

    def forward(self, planned: Planned, view: View) -> planning.Table:
        """FLOPs of one forward of a clip."""
        key = (made(planned), planned.grid, view)
        if key not in self._forwards:
            model = self.model(planned)
            self._forwards[key] = planning.forward_flops(model.short, planned.grid, view, text=model.text.length)
        return self._forwards[key]

    def clip(self, planned: Planned, rule: Guidance, times: Sequence[float], *, device: str = "cuda") -> planning.Clip:
        """What a clip takes to make, at these times of evaluation: on a GPU in bfloat16, on a CPU in float32."""
        sizes, _, short, text = self.model(planned)
        key = (made(planned), planned.grid, planning.asked(short, rule, times), device)
        if key not in self._clips:
            self.tell("a clip")
            size = sum(x.all for part, x in sizes.items() if part != "text")
            how: dict[str, Any] = {"text": text.length, "bf16": device == "cuda", "device": device}
            self._clips[key] = planning.clip(short, size, planned.grid, rule, times, **how)
        return self._clips[key]

    def states(self, planned: Planned, gpus: int) -> planning.Memory:
        """What one of so many GPUs holds between two steps, and of what others hold in one."""
        model = self.model(planned)
        memory = planning.states(model.sizes, ema=planned.ema, bytes_each=planned.bytes_each, bits=planned.bits)
        if planned.sharded:
            blocks = model.short.block_sizes
            return planning.sharded(memory, gpus=gpus, blocks=blocks, ends=model.ends, bf16=planned.bf16)
        if planned.bf16 and planned.bytes_each == 4:  # every GPU holds all of it, and autocast's copies
            narrow = sum(size.narrow for size in model.sizes.values())
            return replace(memory, gathered=(memory.weights - narrow) / 2)
        return memory

    def memory(
        self, planned: Planned, gpus: int, *, checkpointing: Checkpointing | None = None, device: str = "cuda"
    ) -> planning.Memory:
        """What one of so many devices holds at the worst moment, checkpointed as it is planned or as it is said."""
        again = planned.checkpointing if checkpointing is None else checkpointing
        model = self.model(planned)
        steps = tuple(planning.largest(planned.tasks))
        key = (made(planned), planned.grid, steps, planned.batch, planned.bf16, again, device, planned.context)
        if key not in self._peaks:
            self.tell(f"a step of {counted(planned.batch, 'clip')}, {HOW[again]}")
            given: dict[str, Any] = {"batch": planned.batch, "text": model.text.length, "bf16": planned.bf16}
            given |= {"device": device, "context": planned.context}
            self._peaks[key] = max(
                planning.activations(model.short, planned.grid, views, checkpointing=again, **given) for views in steps
            )
        return replace(self.states(planned, gpus), activations=self._peaks[key])
