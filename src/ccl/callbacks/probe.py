"""What the words are worth to a model while it learns: seconds, long before a word error rate can tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ccl import arguments
from ccl.callbacks.preview import sampled_from
from ccl.files import plain_name, reading, write_whole
from ccl.inspection.clips import latents_of, unseen_of
from ccl.inspection.words import TIME, Worth, needed, spoken_of, worth_of
from ccl.types import AV, Batch


class Probe(Callback):
    """Logs by how much another clip's words raise the loss of the sound, every N optimizer steps and at the last one.

    The average of the weights is probed where the EMA callback keeps one, on clips that are not trained on: those for
    validation, or else the world's test split. A line a step stands in the run folder, whose losses begin again where a
    resume does; `val_words` is in TensorBoard. Nothing that training draws is touched.

    Args:
        every: optimizer steps between probes.
        clips: with spoken words in their prompts.
        time: of the noise, above 0 (clean) to 1.
        draws: of the noise, for each clip.
        seed: of the noise.
        name: of the file.
    """

    def __init__(
        self, every: int = 500, clips: int = 32, time: float = TIME, draws: int = 1, seed: int = 0,
        name: str = "words.jsonl",
    ) -> None:  # fmt: skip
        for key, value in (("every", every), ("clips", clips), ("draws", draws)):
            arguments.number(f"Probe's {key}", value, 1, arguments.MOST, whole=True)
        arguments.number("Probe's time", time, 0, 1)
        self.every, self.clips, self.time, self.draws, self.seed = every, clips, time, draws, seed
        self.name = plain_name(name, "Probe")
        self._step = 0
        self._pairs: list[tuple[Batch, AV[Any]]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Gather the clips, and drop the lines that the steps to come will write again."""
        if not trainer.is_global_zero:
            return
        try:
            streams = needed(pl_module.tasks, pl_module.net)
        except ValueError as error:
            rank_zero_warn(f"words are not probed: {error}")
            return
        data = trainer.datamodule
        self._pairs = [
            (batch, latents_of(batch, pl_module.codec, pl_module.grid, streams, pl_module.device))
            for batch in spoken_of(unseen_of(data, self.clips), self.clips)
        ]
        if not self._pairs:
            rank_zero_warn("words are not probed: the data have no clips for validation in which somebody speaks")
            return
        path = Path(trainer.default_root_dir) / self.name
        if path.exists():
            with reading(path, "what words were worth"):
                lines = [
                    line for line in path.read_text().splitlines() if line.endswith("}")
                ]  # a kill leaves half a one
                kept = [line for line in lines if json.loads(line)["step"] <= trainer.global_step]
            write_whole(path, "".join(f"{line}\n" for line in kept))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self._step or (step % self.every and step != trainer.max_steps):
            return
        net, text = sampled_from(pl_module)  # by all processes: sharded weights are gathered
        if self._pairs:
            self.log_worth(trainer, self.look(trainer, pl_module, net, text), step)

    def look(self, trainer: Any, pl_module: Any, net: Any, text: Any) -> Worth:
        """What the words are worth now."""
        modes = [(module, module.training) for module in (net, text)]
        settings: dict[str, Any] = {"time": self.time, "draws": self.draws, "seed": self.seed}
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            try:
                net.eval(), text.eval()
                return worth_of(net, text, self._pairs, pl_module.grid, **settings)
            finally:
                for module, training in modes:
                    module.train(training)

    def log_worth(self, trainer: Any, worth: Worth, step: int) -> None:
        """A line in the run folder, and figures for the loggers."""
        low, high = worth.interval
        values = {"worth": worth.worth, "low": low, "high": high, "loss": float(worth.right.mean())}
        path = Path(trainer.default_root_dir) / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for logger in trainer.loggers:  # where the losses of this step are, which Lightning counts from 0
            logger.log_metrics({f"val_words/{name}": value for name, value in values.items()}, step - 1)
