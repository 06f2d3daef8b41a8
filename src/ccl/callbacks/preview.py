"""Clips to watch and hear while training goes on: mp4 with sound in the run folder and at Weights & Biases, GIF and
sound in TensorBoard."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from ccl import arguments
from ccl.guidance.base import Guidance
from ccl.media import Clip, MediaError
from ccl.sampling import check_schedule, check_solver
from ccl.types import AV, Batch


class Preview(Callback):
    """Samples a few prompts, always with the same noise, every N optimizer steps and at the last one.

    The average of the weights is sampled where the EMA callback keeps one. Nothing that training draws is touched. The
    first process samples and the others wait; sharded weights (FSDP2) are gathered on it first.

    Args:
        prompts: what to sample, one clip each; None is what two clips of the data say, of those for validation where
            there are any.
        every: optimizer steps between previews.
        steps: of the solver.
        guidance: rule; None is the pipeline's own.
        solver: euler, heun or unipc.
        shift: of the sampling times towards noise.
        seed: of the noise.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        every: int = 1000,
        steps: int = 20,
        guidance: Guidance | None = None,
        solver: str = "euler",
        shift: float = 1.0,
        seed: int = 0,
    ) -> None:
        arguments.number("Preview's every", every, 1, arguments.MOST, whole=True)
        check_schedule("Preview's ", steps, shift)
        check_solver(solver)
        self.prompts, self.every, self.steps = None if prompts is None else list(prompts), every, steps
        self.guidance, self.solver, self.shift, self.seed = guidance, solver, shift, seed
        self._step = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.prompts != [] and (fault := unsampled(pl_module)):
            rank_zero_warn(f"there are no previews: {fault}")
            self.prompts = []
        elif self.prompts is None:
            captions = getattr(getattr(trainer, "datamodule", None), "captions", None)
            source, self.prompts = (None, []) if captions is None else captions(2)
            if trainer.is_global_zero:
                said = " and ".join(map(repr, self.prompts))
                told = f"previews show captions of {source}: {said}" if said else "no clip has a caption to preview"
                sys.stdout.write(f"{told}; --preview_prompts takes others\n")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step = trainer.global_step
        if self.prompts and step != self._step and (step % self.every == 0 or step == trainer.max_steps):
            net, text = sampled_from(pl_module)
            if trainer.is_global_zero:
                try:
                    self.show(trainer, self.sample(trainer, pl_module, net, text), step)
                except (OSError, MediaError) as error:  # a full disk must not end a training
                    rank_zero_warn(f"no preview at step {step}: {error}")

    def sample(self, trainer: Any, pl_module: Any, net: nn.Module, text: Any) -> list[Clip]:
        """A clip for each prompt."""
        from ccl.generation import Pipeline

        kwargs: dict[str, Any] = {"steps": self.steps, "solver": self.solver, "shift": self.shift}
        if self.guidance is not None:
            kwargs["guidance"] = self.guidance
        pipe = Pipeline(net, text, pl_module.codec, pl_module.grid, tasks=pl_module.tasks, **kwargs)
        modes = [(module, module.training) for module in (net, text)]
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad(), trainer.precision_plugin.forward_context():
            try:
                net.eval(), text.eval()
                return pipe(self.prompts or [], seed=self.seed)
            finally:
                for module, training in modes:
                    module.train(training)

    def show(self, trainer: Any, clips: list[Clip], step: int) -> None:
        """Write the clips into the run folder and hand them to the loggers that show any."""
        from ccl.media import write_clip

        folder = Path(trainer.default_root_dir) / "previews" / f"step_{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        for i, clip in enumerate(clips):
            path = folder / f"{i}.mp4"
            write_clip(clip, path)
            for logger in trainer.loggers:  # where the losses of this step are, which Lightning counts from 0
                log_clip(logger, f"preview/{i}", clip, path, step - 1)


def unsampled(pl_module: Any) -> str:
    """Why a prompt alone makes no clip of pictures and sound; "" where it does."""
    from ccl.generation.terms import Asked, trained

    if "image" in pl_module.net.needs:
        return "this network is shown a first picture, and a prompt has none"
    try:
        trained(pl_module.tasks, pl_module.net.closed).find(Asked(None, AV(True, True)))
    except ValueError as error:
        return str(error)
    return ""


def sampled_from(pl_module: Any) -> tuple[nn.Module, nn.Module]:
    """Network and text encoder to sample from: the average where there is one; whole, where they are sharded.

    All processes must call it; what it returns is of use on the first alone where weights are sharded.
    """
    average = pl_module.ema if pl_module.ema is not None else {}
    parts = [average[name] if name in average else getattr(pl_module, name) for name in ("net", "text")]
    if not any(isinstance(parameter, DTensor) for part in parts for parameter in part.parameters()):
        return parts[0], parts[1]
    whole = []
    for part, make in zip(parts, pl_module._factories, strict=True):
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(part, options=options)
        if state:
            with torch.random.fork_rng(devices=[]):
                copy = make()
            copy.load_state_dict(state)
            whole.append(copy.to(pl_module.device))
        else:
            whole.append(part)
    return whole[0], whole[1]


def log_clip(logger: Logger, tag: str, clip: Clip, path: Path, step: int) -> None:
    """A clip into TensorBoard or to Weights & Biases; others (CSV) have no place for one, and its file serves."""
    if isinstance(logger, TensorBoardLogger):
        to_tensorboard(logger.experiment, tag, clip, path, step)
    elif isinstance(logger, WandbLogger) and clip.video is not None:
        logger.log_video(tag, [str(path)], step, caption=[clip.prompt], format=["mp4"])  # with its sound
    elif isinstance(logger, WandbLogger):
        logger.log_audio(tag, [clip.audio], step, caption=[clip.prompt], sample_rate=[clip.sample_rate])


def to_tensorboard(writer: Any, tag: str, clip: Clip, path: Path, step: int) -> None:
    """A clip into TensorBoard: GIF, sound and the path of its mp4, for TensorBoard plays no sound with a picture.

    `add_video` wants moviepy and, without it, prints a line and logs nothing; a GIF as an image needs no more than PIL.
    """
    if clip.video is not None:
        frames = [Image.fromarray(frame) for frame in clip.video]
        buffer = io.BytesIO()
        duration = round(1000 / clip.fps)
        frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
        height, width = clip.video.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
    if clip.audio is not None:
        writer.add_audio(f"{tag}/sound", torch.from_numpy(clip.audio)[None], step, sample_rate=clip.sample_rate)
    writer.add_text(f"{tag}/file", f"{path} — {clip.prompt}", step)
