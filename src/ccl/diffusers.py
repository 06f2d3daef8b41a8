"""A pipeline with the interface of diffusers' DiffusionPipeline, for code and hands that are used to it.

Its arguments have diffusers' names, and frames and audio come out as those of diffusers' LTX2Pipeline. It is no
subclass: a model of CCL is a folder of config.yaml and one file of weights, and what of that class takes components
apart (`from_pipe`, `components`) would not work. So it is missing here, rather than broken. LoRA files go on with
`pipe.pipeline.load_lora`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ccl import arguments
from ccl.generation import Pipeline
from ccl.guidance import Guidance, named
from ccl.media import Clip
from ccl.rows import Row
from ccl.sampling import times
from ccl.types import AV, Scale
from ccl.weights.find import on_hub

__all__ = ["CCLPipeline", "CCLPipelineOutput"]

DTYPES: dict[torch.dtype | None, Any] = {None: "float32", torch.float32: "float32", torch.bfloat16: "bfloat16"}
OUTPUTS = ("pil", "np", "pt")


@dataclass
class CCLPipelineOutput(BaseOutput):
    """What a call gives.

    Args:
        frames: of each clip, a list of PIL pictures; (B, T, H, W, 3) float in [0, 1] as "np", (B, T, 3, H, W) as "pt".
        audio: (B, 1, S) float32 in [-1, 1], a tensor, or an array as "np".
        clips: the same as CCL has it, with `fps`, `sample_rate`, notes in `meta`, and `save("out.mp4")`.
    """

    frames: Any
    audio: Any
    clips: list[Clip]


class CCLPipeline:
    """A ccl.generation.Pipeline, called as those of diffusers are.

    Args:
        pipeline: that does the work.
        source: the model that it was loaded from, if any.
        trust: as it was loaded with.
    """

    def __init__(self, pipeline: Pipeline, source: str | Path | None = None, trust: Iterable[str] = ()) -> None:
        self.pipeline, self._source, self._trust = pipeline, source, trust
        self._bar: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        trust: Iterable[str] = (),
        revision: str | None = None,
    ) -> CCLPipeline:
        """A model on the CPU, as diffusers has it; `to("cuda")` moves it.

        Args:
            path: a model folder, a run folder, a .ckpt in one or OWNER/NAME[@REVISION] of the hub; None is the
                checkpoint that ships with the package.
            dtype: of the matrices of the network's blocks, torch.float32 or torch.bfloat16.
            torch_dtype: its older name.
            trust: modules whose classes the model's config may name beside those of ccl; their code runs.
            revision: of a model of the hub: a branch, tag or commit.

        Raises:
            ValueError: one sentence that names what is missing or does not fit.
        """
        from ccl.storage.model_folder import SHIPPED

        asked = torch_dtype if dtype is None else dtype
        if asked not in DTYPES:
            raise ValueError(f"dtype is {asked}; models of CCL run in torch.float32 or torch.bfloat16")
        pipeline = Pipeline.load(path, device="cpu", dtype=DTYPES[asked], trust=trust, revision=revision)
        source = path or SHIPPED
        if there := on_hub(source):  # `save_pretrained` writes what was loaded, whatever is pushed meanwhile
            source = str(there._replace(revision=pipeline.provenance["hub"]["commit"]))
        return cls(pipeline, source, trust)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model, as it was loaded, as a model folder of CCL: no model_index.json, which would name parts.

        Raises:
            ValueError: the folder holds something else, or the pipeline was not loaded from a file.
        """
        from ccl.storage.model_folder import export

        if self._source is None:
            raise ValueError("this pipeline was made of parts, not loaded from a model, so there is none to save")
        export(self._source, folder, dtype=torch.float32, trust=self._trust)

    def to(self, device: str | torch.device | torch.dtype) -> CCLPipeline:
        """Everything on that device.

        Raises:
            ValueError: there is none such, or it is a dtype.
        """
        if isinstance(device, torch.dtype):
            raise ValueError(
                f"to({device}): a model gets its dtype as it is loaded, from_pretrained(..., dtype={device})"
            )
        self.pipeline.to(device)
        return self

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: str | torch.device = "cuda") -> None:
        """Text encoder, network and codecs on the device only while they work; not by accelerate, but as `ccl` has it.

        Args:
            gpu_id: which GPU.
            device: where they work.

        Raises:
            ValueError: there is no such device.
        """
        self.pipeline.enable_offload(device if gpu_id is None else f"{device}:{gpu_id}")

    def load_lora_weights(self, path: str | Path, scale: float = 1.0) -> None:
        """Put a LoRA on the model, beside those that are on.

        Args:
            path: a .safetensors file, a folder of PEFT's or diffusers', or a repository of the hub that is here.
            scale: how strong it is.

        Raises:
            ValueError: as of `Pipeline.load_lora`.
        """
        self.pipeline.load_lora(path, scale)

    def unload_lora_weights(self) -> None:
        """Take all LoRAs off; the network is then what it was, to the last bit."""
        self.pipeline.unload_lora()

    def __repr__(self) -> str:
        grid = self.pipeline.grid
        what = str(self._source) if self._source else "made of parts"
        clips = f"{grid.frames} pictures of {grid.height} x {grid.width} at {grid.fps:g} fps"
        return f"CCLPipeline({what}; {clips}; on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self.pipeline.device

    def set_progress_bar_config(self, **settings: Any) -> None:
        """Arguments of tqdm, as `disable=True`."""
        self._bar = settings

    def __call__(
        self,
        prompt: str | list[str],
        *,
        negative_prompt: str | None = None,
        image: Any = None,
        last_image: Any = None,
        audio: Any = None,
        video: Any = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance: Guidance | str | None = None,
        guidance_scale: float | None = None,
        audio_guidance_scale: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[CCLPipeline, int, Tensor, dict[str, Any]], Any] | None = None,
    ) -> CCLPipelineOutput | tuple[Any, Any]:
        """Clips of prompts.

        Args:
            prompt: one for both streams, spoken words in double quotes.
            negative_prompt: to lead away from.
            image: first picture: a PIL image, (H, W, 3) uint8 or a path.
            last_image: last picture, likewise.
            audio: given sound: (S,) float32 at the model's rate, or a path.
            video: given pictures: PIL images, (T, H, W, 3) uint8 at the model's rate, or a path.
            height: the model's; another is refused.
            width: likewise.
            num_frames: of each clip; more than the model's are made window after window.
            num_inference_steps: of the solver, in place of the model's.
            guidance: rule, in place of the model's, or its name ("ucg3").
            guidance_scale: its strength, in place of the model's.
            audio_guidance_scale: that of the sound; None is the same.
            num_videos_per_prompt: clips of each, each of a seed of its own.
            generator: of the noise. `torch.Generator().manual_seed(7)`, of which nothing was drawn, gives the clip of
                `ccl.load()(..., seed=7)`; each clip moves it on. A list has one for each clip. None takes torch's own,
                which `torch.manual_seed` sets.
            output_type: "pil", "np" or "pt".
            return_dict: False gives (frames, audio).
            callback_on_step_end: called after each step with this, its number, its time times 1000 and an empty dict:
                latents are not shown. What it returns is not read, and what it raises ends the call.

        Raises:
            ValueError: in words, for what is no prompt, picture, sound or setting, or does not fit the model.
        """
        pipeline, grid = self.pipeline, self.pipeline.grid
        if output_type not in OUTPUTS:
            raise ValueError(f"there is no output_type {output_type!r}; choose one of {', '.join(OUTPUTS)}")
        for name, asked, own in (("height", height, grid.height), ("width", width, grid.width)):
            if asked not in (None, own):
                raise ValueError(
                    f"{name} is {asked}; clips of this model are {grid.height} x {grid.width}, nothing else"
                )
        if not isinstance(prompt, str):
            arguments.texts("prompt", prompt)
        arguments.number("num_videos_per_prompt", num_videos_per_prompt, 1, whole=True)
        prompts = [
            text for text in ([prompt] if isinstance(prompt, str) else prompt) for _ in range(num_videos_per_prompt)
        ]
        given = {"image": pixels(image), "last_image": pixels(last_image), "audio": audio, "video": pixels(video)}
        seeds = seeds_of(generator, len(prompts))
        rows = [
            Row(id=f"clip-{i:04d}", prompt=text, negative=negative_prompt or "", seed=seed, **given)
            for i, (text, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        rule = self._rule(guidance, guidance_scale, audio_guidance_scale)
        steps = pipeline.steps if num_inference_steps is None else num_inference_steps
        schedule = 1000 * times(steps, pipeline.shift)
        wanted = AV(*(end is not None for end in pipeline.net.ends))
        seconds = None if num_frames is None else num_frames / grid.fps
        with tqdm(total=steps, **self._bar) as bar:

            def told(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)
                if callback_on_step_end is not None:
                    callback_on_step_end(self, done - 1, schedule[(done - 1) % steps], {})

            how: dict[str, Any] = {"wanted": wanted, "guidance": rule, "steps": steps, "seconds": seconds}
            clips = pipeline.generate(rows, **how, progress=told)
        frames, sound = frames_of(clips, output_type), sound_of(clips, output_type)
        return CCLPipelineOutput(frames, sound, clips) if return_dict else (frames, sound)

    def _rule(self, guidance: Guidance | str | None, scale: float | None, audio_scale: float | None) -> Guidance:
        """The rule that is asked for, with its strengths."""
        own = self.pipeline.rule(guidance)
        if scale is None and audio_scale is None:
            return own
        if scale is None:
            raise ValueError("audio_guidance_scale is given without guidance_scale, that of the pictures")
        return named(None, own, scale=Scale(scale, scale if audio_scale is None else audio_scale))


def seeds_of(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    """A seed for each clip; ValueError where there is not one generator for each.

    A generator that nothing was drawn of gives the seed that it was made with.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return [next_seed(generator or torch.default_generator) for _ in range(count)]
    if len(generator) != count:
        raise ValueError(f"there are {len(generator)} generators for {count} clips; give one for each, or a single one")
    return [next_seed(each) for each in generator]


def next_seed(generator: torch.Generator) -> int:
    """The seed of the next clip; the generator moves on."""
    first = generator.initial_seed()
    fresh = torch.equal(generator.get_state(), generator.clone_state().manual_seed(first).get_state())
    drawn = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    return first if fresh else drawn


def pixels(pictures: Any) -> Any:
    """PIL images, one or a list of them, as (H, W, 3) or (T, H, W, 3) uint8; anything else as it is."""
    if isinstance(pictures, Image.Image):
        return np.asarray(pictures.convert("RGB"))
    if isinstance(pictures, list) and pictures and all(isinstance(one, Image.Image) for one in pictures):
        return np.stack([pixels(one) for one in pictures])
    return pictures


def frames_of(clips: Sequence[Clip], output_type: str) -> Any:
    """Pictures of clips, as `CCLPipelineOutput` has them; None where they have none."""
    if any(clip.video is None for clip in clips):
        return None
    if output_type == "pil":
        return [[Image.fromarray(picture) for picture in clip.video] for clip in clips]  # type: ignore[union-attr]
    stacked = np.stack([clip.video for clip in clips]).astype(np.float32) / 255  # type: ignore[misc]
    return stacked if output_type == "np" else torch.from_numpy(stacked).movedim(-1, 2)


def sound_of(clips: Sequence[Clip], output_type: str) -> Any:
    """Sound of clips, (B, 1, S); None where they have none."""
    if any(clip.audio is None for clip in clips):
        return None
    stacked = np.stack([clip.audio for clip in clips])[:, None]  # type: ignore[misc]
    return stacked if output_type == "np" else torch.from_numpy(stacked)
