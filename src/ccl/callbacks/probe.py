"""What words and descriptions are worth to a model while it learns: seconds, long before clips can tell."""

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
from ccl.inspection.parts import WORDS, PromptPart
from ccl.inspection.words import TIME, Pairs, Worth, gathered, probed, worth_of
from ccl.types import Batch


class Probe(Callback):
    """Logs by how much another clip's words raise the loss of the sound, and another clip's description that of the
    pictures, of the streams that there are, every N optimizer steps and at the last one.

    The average of the weights is probed where the EMA callback keeps one, on clips that are not trained on: those for
    validation, or else the world's test split. A line a step stands in the run folder, whose losses begin again where a
    resume does; `val_words` and `val_description` are in TensorBoard. Nothing that training draws is touched.

    Args:
        every: optimizer steps between probes.
        clips: with spoken words in their prompts, and so many with a description.
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
        self._pairs: dict[PromptPart, Pairs] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Gather the clips, and drop the lines that the steps to come will write again."""
        if not trainer.is_global_zero:
            return
        needs, faults = probed(pl_module.tasks, pl_module.net)
        self._pairs = {}
        if needs:
            self._pairs, unfit = gathered(
                unseen_of(trainer.datamodule, self.clips), self.clips, needs,
                lambda batch, streams: latents_of(batch, pl_module.codec, pl_module.grid, streams, pl_module.device),
            )  # fmt: skip
            faults |= {part: f"of the clips for validation, {fault}" for part, fault in unfit.items()}
        for part, fault in faults.items():
            rank_zero_warn(f"worth of {part} is not probed: {fault}")
        if not self._pairs:
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

    def look(self, trainer: Any, pl_module: Any, net: Any, text: Any) -> dict[PromptPart, Worth]:
        """What each part is worth now."""
        modes = [(module, module.training) for module in (net, text)]
        settings: dict[str, Any] = {"time": self.time, "draws": self.draws, "seed": self.seed}
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            try:
                net.eval(), text.eval()
                return {
                    part: worth_of(net, text, clips, pl_module.grid, part, **settings)
                    for part, clips in self._pairs.items()
                }
            finally:
                for module, training in modes:
                    module.train(training)

    def log_worth(self, trainer: Any, worths: dict[PromptPart, Worth], step: int) -> None:
        """A line in the run folder, and figures for the loggers."""
        line: dict[str, float] = {"step": step}
        for part, worth in worths.items():
            low, high = worth.interval
            values = {"worth": worth.worth, "low": low, "high": high, "loss": float(worth.right.mean())}
            # The words' keys are plain: the file had them alone at first.
            line |= values if part is WORDS else {f"{part.name}_{name}": value for name, value in values.items()}
            for logger in trainer.loggers:  # where the losses of this step are, which Lightning counts from 0
                logger.log_metrics({f"val_{part.name}/{name}": value for name, value in values.items()}, step - 1)
        path = Path(trainer.default_root_dir) / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
