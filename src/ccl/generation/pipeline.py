"""From prompts to clips: read conditions, draw noise, solve, decode (CCL Sec. 4.3; the tasks of Sec. 4.2).

One way for every generation task: joint from text, from text and a first or last picture, from the beginning or to the
end of a clip, a2v (sound given), v2a (pictures given), video or sound alone, each on a term that was trained. Longer
clips are window after window. A clip depends on its own row and seed, not on its batch. B clips, T latent frames.

Text encoder, network and codecs work one after the other. With `offload` the network waits on the CPU until prompts are
encoded, and then stays, or with "blocks" comes two blocks at a time; the others are on the device only while they
work. States of prompts are kept, so that the text encoder comes once for a whole list of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from ccl import arguments
from ccl.codecs.base import Codec
from ccl.generation.conditions import Conditions
from ccl.generation.given import Media, frames, sound, to_length
from ccl.generation.how import How
from ccl.generation.latents import decode, noise
from ccl.generation.order import Order, grown
from ccl.generation.prompts import notes_of, texts_of
from ccl.generation.terms import Trained, trained
from ccl.grid import Grid
from ccl.guidance import UCG2, Guidance, check_passes, guided, named, remark
from ccl.guidance.stepcache import StepCache
from ccl.image import ImageEncoder
from ccl.media import Clip
from ccl.model.adapter import shapes_without
from ccl.model.lora import Loras
from ccl.model.read_lora import read_lora
from ccl.rng import seed_of
from ccl.rows import Row, check_rows
from ccl.sampling import Held, Progress, Sampling, evaluated, solve, times
from ccl.tasks import Task, Term
from ccl.text.base import TextEncoder
from ccl.text.states import valid
from ccl.types import AV, STREAMS, VOICE
from ccl.weights.frozen import Precision

Offloaded = bool | Literal["blocks"]


class Pipeline:
    """A model with everything around it: prompts in, clips out.

    Args:
        net: a DualStreamTransformer.
        text: its text encoder.
        codec: its codec.
        grid: shape of the clips.
        guidance: rule; None is UCG with two passes.
        steps: of the solver.
        solver: "euler", "heun" or "unipc".
        shift: moves the solver's times towards noise.
        provenance: where the weights come from, written beside every clip.
        device: where everything works; None is where the network is.
        half: autocast to bfloat16 on a CPU too; on a GPU that is always so.
        offload: text encoder and codecs are on the device only while they work, the first before the network is;
            decode clip by clip, in pieces along time. "blocks": the network's blocks come two at a time as well, the
            next one copied from the CPU while one works.
        image: encoder of the first picture, of a network that is shown one.
        tasks: that the network was trained on, so that it is sampled on no other; None is the paper's.
        step_cache: how far, relative to their size, a clip's latents may have moved for a prediction of an earlier step
            to be taken again; 0 never does. See `ccl.guidance.stepcache`.

    Raises:
        ValueError: an argument is of another kind, or no times can be made of steps and shift.
    """

    def __init__(
        self,
        net: Any,
        text: TextEncoder,
        codec: Codec,
        grid: Grid,
        *,
        guidance: Guidance | None = None,
        steps: int = 30,
        solver: str = "euler",
        shift: float = 1.0,
        provenance: dict[str, Any] | None = None,
        device: str | torch.device | None = None,
        half: bool = False,
        offload: Offloaded = False,
        image: ImageEncoder | None = None,
        tasks: Mapping[str, Task] | None = None,
        step_cache: float = 0.0,
    ) -> None:
        if offload not in (False, True, "blocks"):
            raise ValueError(f'offload is {offload!r}; it is false, true or "blocks"')
        for name, part, kind in (("text", text, TextEncoder), ("codec", codec, Codec), ("grid", grid, Grid)):
            arguments.instance(name, part, kind, f"a {kind.__name__}")
        arguments.instance("net", net, torch.nn.Module, "a DualStreamTransformer")
        Sampling(guidance, steps, solver, shift)  # type: ignore[arg-type]  # raises what does not fit
        self.net, self.text, self.codec, self.grid = net, text, codec, grid
        self._device = None if device is None else place(device)
        self.half, self.offload, self.image = half, offload, image
        self._states: dict[str, Tensor] = {}  # of prompts, on the CPU, without the zeros after them; offload alone
        self.guidance: Guidance = UCG2() if guidance is None else guidance
        self.steps, self.solver, self.shift = steps, solver, shift
        StepCache(step_cache)  # raises what does not fit
        self.step_cache = step_cache
        self.loras = Loras(net)
        self.provenance = provenance or {}
        self.tasks = tasks
        trained(tasks, "nothing")  # raises what does not fit

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: Precision = "float32",
        offload: Offloaded = False,
        trust: Iterable[str] = (),
        step_cache: float = 0.0,
        revision: str | None = None,
    ) -> Pipeline:
        """A model folder, a run folder, a .ckpt in one or, as a text, OWNER/NAME[@REVISION] of the hub; None is the
        checkpoint that ships with the package.

        Args:
            path: of the model.
            device: None is the GPU where there is one.
            dtype: of the matrices of the network's blocks, nearly all of its memory. In bfloat16 they take half of it,
                and a clip is to the last bit what autocast makes of float32: the rest stays as it is.
            offload: text encoder and codecs are on the device only while they work, the first before the network is;
                for models that do not fit beside umT5; "blocks" for those that do not fit at all.
            trust: modules whose classes the model's config may name beside those of ccl, as "mine" for `mine.Fusion`;
                their code runs.
            step_cache: as of the constructor.
            revision: of a model of the hub, in the place of @REVISION: a branch, tag or commit.

        Raises:
            ValueError: one sentence that names what is missing or does not fit.
        """
        from ccl.storage.model_folder import load_model

        if path is not None:
            arguments.instance("path", path, (str, Path), "the path of a model, or None")
        arguments.instance("trust", trust, (str, list, tuple, set), "a list of names of modules")
        device = place(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        half = dtype == "bfloat16"
        model = load_model(path, half=half, trust=trust, revision=revision)
        for part in (model.net, model.text, model.codec):
            part.eval().requires_grad_(False)
        settings = {**vars(model.sampling), "device": device, "half": half, "offload": offload, "image": model.image}
        settings["step_cache"] = step_cache
        parts = (model.net, model.text, model.codec, model.grid)
        return cls(*parts, **settings, provenance=model.provenance, tasks=model.tasks).to(device)

    def to(self, device: str | torch.device) -> Pipeline:
        """The pipeline, working on that device from now on; with `offload` the network comes there when it is needed.

        Raises:
            ValueError: there is no such device.
        """
        self._device = place(device)
        for part in (self.text, self.codec) if self.offload else (self.net, self.text, self.codec):
            part.to(self._device)
        return self

    def enable_offload(self, device: str | torch.device) -> None:
        """As if it had been loaded onto that device with `offload`."""
        self.offload = True
        self.to(device)
        self.net.to("cpu")

    def load_lora(self, path: str | Path, scale: float = 1.0) -> None:
        """Put a LoRA file on the network, beside those that are on it. What of it has no place here is a note of clips.

        Args:
            path: a .safetensors file in the names of PEFT, diffusers, ComfyUI, musubi-tuner or lightx2v, or a folder.
            scale: how strong; 1 is as it was trained, 0 nothing, less than 0 the other way.

        Raises:
            ValueError: one sentence that names the file: it is damaged, no LoRA, or of another network; nothing is
                changed then.
        """
        arguments.instance("path", path, (str, Path), "the path of a LoRA")
        arguments.number("scale", scale)
        self.loras.put([*self.loras.on, (read_lora(path, shapes_without(self.net)), scale)])

    def unload_lora(self) -> None:
        """Take all LoRAs off; the network is to the last bit what it was before."""
        self.loras.put([])

    def __call__(
        self,
        prompt: str | list[str],
        *,
        image: Any = None,
        last_image: Any = None,
        prefix: Any = None,
        suffix: Any = None,
        voice: Any = None,
        audio: Any = None,
        video: Any = None,
        then: Sequence[str] = (),
        negative: str = "",
        negative_audio: str | None = None,
        seed: int = 0,
        wanted: AV[bool] = AV(True, True),
        task: str | None = None,
        guidance: Guidance | str | None = None,
        steps: int | None = None,
        shift: float | None = None,
        seconds: float | None = None,
        overlap: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """A clip of a prompt, or a list of clips of a list of prompts.

        Args:
            prompt: one for both streams, spoken words in double quotes.
            image: first picture, a path or (H, W, 3) uint8 of any size, of which the middle is taken.
            last_image: last picture, likewise.
            prefix: a clip that is gone on from, a path or a Clip; the result begins with it.
            suffix: a clip that is led to, likewise; the result ends with it.
            voice: a sound of whoever is to speak, as `audio`: its voice is taken, and nothing that it says.
            audio: given sound (a2v), a path or (S,) float32 at the grid's sample rate.
            video: given pictures (v2a), a path or (T, H, W, 3) uint8 of any size, at the grid's rate.
            then: prompts of the windows that follow the first, of a clip of several; none is the first one's again.
            negative: prompt to lead away from.
            negative_audio: the sound's own; None is `negative`.
            seed: of the noise; equal prompts with equal seeds give equal clips, in any batch.
            wanted: streams of the clip; one that is neither wanted nor given costs nothing.
            task: name of the trained term to sample on; None is that which suits what is given and wanted.
            guidance: rule, in place of the pipeline's; by its name ("ucg3") it takes the strengths of the pipeline's.
            steps: of the solver, in place of the pipeline's.
            shift: moves its times towards noise, in place of the pipeline's; 1 leaves them even.
            seconds: how long the clip is to be, window after window; None is one window more than there is.
            overlap: seconds that windows share; None is the longest beginning that the model was trained to go on from.
            progress: called with (steps done, steps).

        Raises:
            ValueError: in words, for what is no prompt, picture, sound or setting, or does not fit the model.
        """
        if not isinstance(prompt, str):
            arguments.texts("prompt", prompt)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        shared: dict[str, Any] = {"then": then, "negative": negative, "negative_audio": negative_audio, "seed": seed}
        shared |= {"image": image, "last_image": last_image, "prefix": prefix, "suffix": suffix}
        shared |= {"voice": voice, "audio": audio, "video": video}
        rows = [Row(id=f"clip-{i:04d}", prompt=text, **shared) for i, text in enumerate(prompts)]
        how: dict[str, Any] = {"wanted": wanted, "task": task, "guidance": guidance, "steps": steps, "shift": shift}
        how |= {"seconds": seconds, "overlap": overlap}
        clips = self.generate(rows, **how, progress=progress)
        return clips[0] if isinstance(prompt, str) else clips

    def _check_streams(self, wanted: AV[bool]) -> None:
        for stream, asked, end in zip(STREAMS, wanted, self.net.ends, strict=True):
            if asked and end is None:
                other = next(name for name in STREAMS if name != stream)
                raise ValueError(f"this model has no {stream} stream; its {other} alone is made with `--only {other}`")

    @torch.no_grad()
    def generate(
        self,
        rows: Sequence[Row],
        *,
        wanted: AV[bool] = AV(True, True),
        task: str | None = None,
        guidance: Guidance | str | None = None,
        steps: int | None = None,
        shift: float | None = None,
        seconds: float | None = None,
        overlap: float | None = None,
        progress: Progress | None = None,
    ) -> list[Clip]:
        """Clips of rows that share a generation task; a row without a seed takes 0.

        What a reader of a clip may not expect stands in its `meta["notes"]`: what was cut, padded or cropped of the
        given media, where a guidance rule is another one on this model, and words that the model has not learned. Where
        it is of several windows, `meta["seams"]` has the first picture of each but the first.

        Raises:
            ValueError: in words, for what is no row or setting, or does not fit the model or what it was trained on.
        """
        check_rows(rows, to_read=True)
        arguments.instance("wanted", wanted, AV, "AV(video, audio), of bool")
        self._check_streams(wanted)
        order = Order.of(rows, self.grid, wanted, shown="image" in self.net.needs, seconds=seconds)
        schedule = times(self.steps if steps is None else steps, self.shift if shift is None else shift)
        how = How(order, self.rule(guidance), schedule, evaluated(schedule, self.solver))
        terms = order.terms(rows, self.trained, task)
        remarks = [sentence for term, strange in terms for sentence in (strange, *self.remarks(how, term))]
        remarks += [note for lora, _ in self.loras.on for note in lora.notes]
        notes = notes_of(rows, [*dict.fromkeys(filter(None, remarks))], self.provenance.get("words"))
        plans = order.plans(rows, terms[-1][0], overlap, notes)
        rounds = max(plan.count for plan in plans) + (not order.begun)

        def make(number: int, at: Sequence[int], shared: Sequence[AV[Any] | None]) -> list[AV[Any]]:
            """A window of each of these rows; the number of those that begin a clip is -1."""
            done = number + (not order.begun)
            some = [at_window(rows[i], plans[i].prompts[done], done) for i in at]
            media = [plans[i].given(order, number, x) for i, x in zip(at, shared, strict=True)]

            def told(step: int, steps: int) -> None:
                if progress is not None:
                    progress(done * steps + step, rounds * steps)

            term, _ = terms[0 if number < 0 else -1]
            return self.window(some, media, term, how, [notes[i] for i in at], told)

        films: list[Any] = [plan.film for plan in plans]
        if not order.begun:
            films = make(-1, range(len(rows)), films)
        clips = []
        for row, plan, film, of_row in zip(rows, plans, grown(films, plans, make), notes, strict=True):
            clip = self.clip(row, plan.finished(film, order), wanted)
            meta = {"notes": of_row, "seams": plan.seams}
            clips.append(replace(clip, meta={key: value for key, value in meta.items() if value}))
        return clips

    def window(
        self,
        rows: Sequence[Row],
        media: Sequence[Media],
        term: Term,
        how: How,
        notes: Sequence[list[str]],
        progress: Progress,
    ) -> list[AV[Any]]:
        """The generated streams of clips of the grid's length: video (F, H, W, 3) uint8, audio (S,) float32, or None.

        Args:
            rows: with their prompts and seeds.
            media: that they are given.
            term: that they are sampled on.
            how: they are sampled.
            notes: of each, which get what the step cache says.
            progress: called with (steps done, steps).
        """
        order, present, route, passes = how.order, how.order.present, how.route(term), how.passes(term)
        drawn = noise([row.seed or 0 for row in rows], present, self.codec, self.grid, self.device)
        shown = self.conditions.shown(rows, media) if order.shows else None
        if self.offload and self.image is not None:
            self.image.unload()
        kept = [x.without_first() if shown and row.image is not None else x for row, x in zip(rows, media, strict=True)]
        held = self.conditions.held(kept, drawn, term)
        null: AV[bool] = AV(*(here and any(one.null[i] for one in passes) for i, here in enumerate(present)))
        null_times = self.trained.given_times
        nulls = Held(self.conditions.nulls(media, null), time=null_times, noise=drawn).seen
        prompts = texts_of(rows, passes)
        self.remember([prompt for texts in prompts.values() for each in texts for prompt in each])
        if self.offload:
            self.codec.unload()
            if self.offload == "blocks":
                self.net.offload_blocks(self.device)
            else:
                self.net.to(self.device)
        with self.autocast():
            texts = {text: self.states(each.video) if each.video == each.audio else each.map(self.states)
                     for text, each in prompts.items()}  # fmt: skip
            # Sound alone needs no picture, but it cannot be prepared without.
            cached = not isinstance(self.net, FSDPModule) and not ("image" in self.net.needs and shown is None)
            settings: dict[str, Any] = {"grid": self.grid, "generated": order.generated, "cached": cached}
            settings |= {"nulls": nulls, "null_times": null_times}
            extras = {"image": shown, VOICE: self.conditions.voice(media)}
            settings["extras"] = {name: told for name, told in extras.items() if told is not None}
            steps_kept = StepCache(self.step_cache) if self.step_cache else None  # of these clips alone
            settings["steps"] = steps_kept
            velocity = guided(self.net, how.rule, route, texts, **settings)

        def cast(x: AV[Any], times: AV[Any], t: float) -> AV[Any]:
            with self.autocast():  # the network alone: the solver's arithmetic stays in float32
                return velocity(x, times, t)

        z = solve(cast, drawn, how.schedule, solver=self.solver, held=held, progress=progress)
        if steps_kept is not None:
            for i, of_row in enumerate(notes):
                of_row.append(steps_kept.said(i))
        decoded = self.decode(AV(*(latents if g else None for latents, g in zip(z, order.generated, strict=True))))
        return [self.media_of(decoded, i) for i in range(len(rows))]

    def remarks(self, how: How, term: Term) -> list[str]:
        """What is to be told of a guidance rule on a term; of a model's own, nothing.

        Raises:
            ValueError: the network cannot take one of its passes.
        """
        passes = how.passes(term)
        check_passes(how.rule, passes, self.net)
        if how.rule is self.guidance:
            return []
        told = remark(how.rule, how.route(term), self.net.closed, how.asked_at)
        return [told, self.trained.unseen(how.rule.called, passes)]

    def rule(self, guidance: Guidance | str | None) -> Guidance:
        """A guidance rule, or that of a name with the pipeline's strengths; None is the pipeline's own.

        Raises:
            ValueError: there is no rule of that name.
        """
        if guidance is None:
            return self.guidance
        return guidance if isinstance(guidance, Guidance) else named(guidance, self.guidance)

    @torch.no_grad()
    def reconstruct(self, row: Row) -> Clip:
        """The row's true clip, encoded and decoded: the best that a model of this codec can do."""
        check_rows([row])
        if row.reference is None:
            raise ValueError(f"{row.id}: names no true clip, `reference`")
        media: AV[Any] = AV(frames(row.reference, self.grid, []), sound(row.reference, self.grid, []))
        z: AV[Any] = AV(*(self.conditions.encode(s, x)[None] for s, x in zip(STREAMS, media, strict=True)))
        return self.clip(row, self.media_of(self.decode(z), 0), AV(True, True))

    @torch.no_grad()
    def remember(self, prompts: Sequence[str]) -> None:
        """With `offload`: encode what is not remembered yet, alone on the device. To be called with all prompts of a
        list of rows, so that the text encoder comes only once; otherwise it does nothing."""
        lacking = [text for text in dict.fromkeys(prompts) if text not in self._states] if self.offload else []
        if not lacking:
            return
        if self.offload is True:
            self.net.to("cpu")
        for text in lacking:
            with self.autocast():
                states = self.text([text])[0]
            self._states[text] = valid(states).cpu()
        self.text.unload()

    def states(self, prompts: list[str]) -> Float[Tensor, "b l d"]:
        """Of the text encoder, or as they were remembered."""
        if not self.offload:
            return self.text(prompts)
        rows = [self._states[text] for text in prompts]
        return torch.stack([F.pad(x, (0, 0, 0, self.text.length - len(x))) for x in rows]).to(self.device)

    def decode(self, z: AV[Tensor | None]) -> AV[Any]:
        """Pictures of each clip, (F, H, W, 3) uint8, and sound, (S,) float32; None where there are none."""
        decoded = decode(z, self.codec, in_pieces=bool(self.offload))
        if self.offload:
            self.codec.unload()
        return decoded

    def media_of(self, decoded: AV[Any], i: int) -> AV[Any]:
        """Row i of a decoded batch: pictures, and sound as long as these."""
        video, audio = decoded
        heard = None if audio is None else to_length(audio[i].float().cpu().numpy(), self.grid.samples)
        return AV(None if video is None else video[i], heard)

    def clip(self, row: Row, media: AV[Any], wanted: AV[bool]) -> Clip:
        """A clip of a row."""
        return Clip(
            video=media.video if wanted.video else None,
            audio=media.audio if wanted.audio else None,
            fps=self.grid.fps,
            sample_rate=self.grid.sample_rate,
            prompt=row.prompt,
            id=row.id,
        )

    @property
    def trained(self) -> Trained:
        """What the network was trained on."""
        return trained(self.tasks, self.net.closed)

    @property
    def conditions(self) -> Conditions:
        """How given media are held and shown."""
        return Conditions(self.codec, self.grid, self.device, self.image)

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device if self._device is None else self._device

    def autocast(self) -> torch.autocast:
        """bfloat16 where there is a GPU, or where it is asked for."""
        enabled = self.half or self.device.type == "cuda"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


def at_window(row: Row, prompt: str, number: int) -> Row:
    """A row as a window of its clip is made, with its prompt and noise; the first one's noise is the clip's own."""
    seed = row.seed or 0
    return replace(row, prompt=prompt, seed=seed if not number else seed_of("window", seed, number) % 2**31)


def place(device: str | torch.device) -> torch.device:
    """The device of that name. ValueError where there is none such here."""
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError) as error:  # as torch has it, for names, numbers and builds
        raise ValueError(f"there is no device {device!r} here; give cpu, or cuda where there is a GPU") from error
