"""From prompts to clips: read conditions, draw noise, solve, decode (CCL Sec. 4.3; the tasks of Sec. 4.2).

One route for every generation task: joint from text, from text and a first picture, a2v (sound given), v2a (pictures
given), video or sound alone. A clip depends on its own row and seed, not on its batch. B clips, T latent frames.

Text encoder, network and codecs work one after the other. With `offload` the network waits on the CPU until prompts are
encoded, and then stays; the others are on the device only while they work. States of prompts are kept, so that the text
encoder comes once for a whole list of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from ccl import arguments
from ccl.codecs.base import Codec
from ccl.grid import Grid
from ccl.guidance import UCG2, Guidance, guided, named, remark
from ccl.image import ImageEncoder
from ccl.image.first import show
from ccl.media import Clip, is_sound
from ccl.model.image import Shown
from ccl.rng import generator
from ccl.rows import Row, check_rows
from ccl.sampling import Progress, Sampling, solve, times
from ccl.tasks import generation_route
from ccl.text.base import TextEncoder
from ccl.text.states import valid
from ccl.text.vocabulary import unknown
from ccl.types import AV, STREAMS, Stream
from ccl.weights.pretrained import Precision

LOUDEST = 100.0  # of samples: far above what any recording overshoots 1 by, and below what integers of 16 bits are


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
            decode clip by clip, in pieces along time.
        image: encoder of the first picture, of a network that is shown one.

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
        offload: bool = False,
        image: ImageEncoder | None = None,
    ) -> None:
        for name, part, kind in (("text", text, TextEncoder), ("codec", codec, Codec), ("grid", grid, Grid)):
            arguments.instance(name, part, kind, f"a {kind.__name__}")
        arguments.instance("net", net, torch.nn.Module, "a DualStreamTransformer")
        Sampling(guidance, steps, solver, shift)  # type: ignore[arg-type]  # which looks at them
        self.net, self.text, self.codec, self.grid = net, text, codec, grid
        self._device = None if device is None else place(device)
        self.half, self.offload, self.image = half, offload, image
        self._states: dict[str, Tensor] = {}  # of prompts, on the CPU, without the zeros after them; offload alone
        self.guidance: Guidance = UCG2() if guidance is None else guidance
        self.steps, self.solver, self.shift = steps, solver, shift
        self.provenance = provenance or {}

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: Precision = "float32",
        offload: bool = False,
        trust: Iterable[str] = (),
    ) -> Pipeline:
        """A model folder, a run folder or a .ckpt in one; None is the checkpoint that ships with the package.

        Args:
            path: of the model.
            device: None is the GPU where there is one.
            dtype: of the matrices of the network's blocks, nearly all of its memory. In bfloat16 they take half of it,
                and a clip is to the last bit what autocast makes of float32: the rest stays as it is.
            offload: text encoder and codecs are on the device only while they work, the first before the network is;
                for models that do not fit beside umT5.
            trust: modules whose classes the model's config may name beside those of ccl, as "mine" for `mine.Fusion`;
                their code runs.

        Raises:
            ValueError: one sentence that names what is missing or does not fit.
        """
        from ccl.storage.model_folder import load_model

        if path is not None:
            arguments.instance("path", path, (str, Path), "the path of a model, or None")
        arguments.instance("trust", trust, (str, list, tuple, set), "a list of names of modules")
        device = place(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        half = dtype == "bfloat16"
        model = load_model(path, half=half, trust=trust)
        for part in (model.net, model.text, model.codec):
            if part is not model.net or not offload:
                part.to(device)
            part.eval().requires_grad_(False)
        settings = {**vars(model.sampling), "device": device, "half": half, "offload": offload, "image": model.image}
        return cls(model.net, model.text, model.codec, model.grid, **settings, provenance=model.provenance)

    def __call__(
        self,
        prompt: str | list[str],
        *,
        image: Any = None,
        audio: Any = None,
        video: Any = None,
        negative: str = "",
        seed: int = 0,
        wanted: AV[bool] = AV(True, True),
        guidance: Guidance | str | None = None,
        steps: int | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """A clip of a prompt, or a list of clips of a list of prompts.

        Args:
            prompt: one for both streams, spoken words in double quotes.
            image: first picture, a path or (H, W, 3) uint8 of any size, of which the middle is taken.
            audio: given sound (a2v), a path or (S,) float32 at the grid's sample rate.
            video: given pictures (v2a), a path or (T, H, W, 3) uint8 of any size, at the grid's rate.
            negative: prompt to lead away from.
            seed: of the noise; equal prompts with equal seeds give equal clips, in any batch.
            wanted: streams of the clip; one that is neither wanted nor given costs nothing.
            guidance: rule, in place of the pipeline's; by its name ("ucg3") it takes the strengths of the pipeline's.
            steps: of the solver, in place of the pipeline's.
            progress: called with (steps done, steps).

        Raises:
            ValueError: in words, for what is no prompt, picture, sound or setting, or does not fit the model.
        """
        if not isinstance(prompt, str):
            arguments.texts("prompt", prompt)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        shared = {"negative": negative, "image": image, "audio": audio, "video": video, "seed": seed}
        rows = [Row(id=f"clip-{i:04d}", prompt=text, **shared) for i, text in enumerate(prompts)]
        clips = self.generate(rows, wanted=wanted, guidance=guidance, steps=steps, progress=progress)
        return clips[0] if isinstance(prompt, str) else clips

    @torch.no_grad()
    def generate(
        self,
        rows: Sequence[Row],
        *,
        wanted: AV[bool] = AV(True, True),
        guidance: Guidance | str | None = None,
        steps: int | None = None,
        progress: Progress | None = None,
    ) -> list[Clip]:
        """Clips of rows that share a generation task; a row without a seed takes 0.

        What a reader of a clip may not expect stands in its `meta["notes"]`: what was cut, padded or cropped of the
        given media, where a guidance rule is another one on this model, and words that the model has not learned.

        Raises:
            ValueError: in words, for what is no row or setting, or does not fit the model.
        """
        check_rows(rows, to_read=True)
        arguments.instance("wanted", wanted, AV, "AV(video, audio), of bool")
        rule = self.rule(guidance)
        given = shared_stream(rows)
        generated = AV(wanted.video and given != "video", wanted.audio and given != "audio")
        present = AV(generated.video or given == "video", generated.audio or given == "audio")
        if not any(generated):
            raise ValueError("nothing is left to generate: ask for a stream that is not given")
        if not generated.video and any(row.image is not None for row in rows):
            raise ValueError("a first image is given, but no pictures are to be generated")

        route = generation_route(given, wanted)
        said = remark(rule, route, self.net.closed)
        told = said and rule is not self.guidance  # of a rule that somebody asked for
        notes: list[list[str]] = [[said] if told else [] for _ in rows]
        known = self.provenance.get("words")
        for row, heard in zip(rows, notes, strict=True):
            if known and (note := unknown((row.prompt, row.negative), known)):
                heard.append(note)
        media = [self.read(row, heard) for row, heard in zip(rows, notes, strict=True)]
        noise = self.noise([row.seed or 0 for row in rows], present)
        shown = self.shown(rows, media) if self.net.shown and present.video else None
        # A picture that is shown so is no latent frame of the clip's: those are all generated, or all given.
        held = [AV(None, x.audio) if shown and row.image is not None else x for row, x in zip(rows, media, strict=True)]
        clean, mask = self.conditions(held, noise)
        self.remember([text for row in rows for text in (row.prompt, row.negative)])
        if self.offload:
            self.codec.unload()
            self.net.to(self.device)
        with self.autocast():
            texts = {
                "positive": self.states([row.prompt for row in rows]),
                "negative": self.states([row.negative for row in rows]),
            }
            # Sound alone needs no picture, but it cannot be prepared without.
            cached = not isinstance(self.net, FSDPModule) and not (self.net.shown and shown is None)
            settings: dict[str, Any] = {"grid": self.grid, "generated": generated, "cached": cached, "image": shown}
            velocity = guided(self.net, texts, rule.weights(route), **settings)

        def cast(x: AV[Any], t: AV[Any]) -> AV[Any]:
            with self.autocast():  # the network alone: the solver's arithmetic stays in float32
                return velocity(x, t)

        schedule = times(self.steps if steps is None else steps, self.shift)
        z = solve(cast, noise, schedule, solver=self.solver, clean=clean, mask=mask, progress=progress)
        decoded = self.decode(AV(*(latents if g else None for latents, g in zip(z, generated, strict=True))))
        clips = [self.clip(row, i, decoded, media[i], wanted) for i, row in enumerate(rows)]
        return [
            replace(clip, meta={"notes": heard}) if heard else clip for clip, heard in zip(clips, notes, strict=True)
        ]

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
        media: AV[Any] = AV(self._frames(row.reference, []), self._sound(row.reference, []))
        z: AV[Any] = AV(*(self._encode(stream, x)[None] for stream, x in zip(STREAMS, media, strict=True)))
        return self.clip(row, 0, self.decode(z), media, AV(True, True))

    def read(self, row: Row, notes: list[str]) -> AV[Any]:
        """What is given, as media: video (F, H, W, 3) uint8, of one frame for a first image, and audio (S,) float32.

        Args:
            row: that names it.
            notes: gets a sentence for each thing that was cut, padded or cropped.
        """
        video = self._frames(row.video, notes) if row.image is None else self._picture(row.image, notes)
        return AV(video, self._sound(row.audio, notes))

    def noise(self, seeds: list[int], present: AV[bool]) -> AV[Any]:
        """(B, C, T, ...) of each stream that takes part; a row's noise follows from its seed and the stream alone."""
        codec, grid = self.codec, self.grid
        shapes = AV(
            (codec.video.channels, grid.t_v, grid.latent_height, grid.latent_width), (codec.audio.channels, grid.t_a)
        )

        def draw(stream: Stream, shape: tuple[int, ...]) -> Tensor:
            rows = [torch.randn(shape, generator=generator("sample", seed, stream)) for seed in seeds]
            return torch.stack(rows).to(self.device)

        return AV(*(draw(s, shape) if p else None for s, shape, p in zip(STREAMS, shapes, present, strict=True)))

    def conditions(self, media: list[AV[Any]], like: AV[Any]) -> tuple[AV[Any], AV[Any]]:
        """Latents of the given media, (B, C, T, ...), and where they hold, (B, T); None where a stream has none.

        An image is a video of one frame, so it holds the first latent frame; rows of a batch may differ.
        """
        held = [self._held(stream, media, x) for stream, x in zip(STREAMS, like, strict=True)]
        return AV(*(pair[0] for pair in held)), AV(*(pair[1] for pair in held))

    def shown(self, rows: Sequence[Row], media: list[AV[Any]]) -> Shown:
        """The first picture of each row, as a network of Wan2.1-I2V's kind is shown it; of given pictures, the first.

        Raises:
            ValueError: a row has none, or the model has no encoder of it.
        """
        if lacking := [row.id for row, x in zip(rows, media, strict=True) if x.video is None]:
            raise ValueError(f"{lacking[0]}: this network is always shown a first picture: give `image`")
        if self.image is None:
            raise ValueError(
                "this network is shown a first picture, but the model's config has no encoder of it, `image`"
            )
        each = []
        for x in media:  # one at a time, so that a clip does not depend on its batch
            picture = torch.tensor(x.video[:1], device=self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            each.append(show(picture, self.grid.frames, self.codec.video, self.image))
        if self.offload:
            self.image.unload()
        return Shown(torch.cat([one.latents for one in each]), torch.cat([one.states for one in each]))

    @torch.no_grad()
    def remember(self, prompts: Sequence[str]) -> None:
        """With `offload`: encode what is not remembered yet, alone on the device. To be called with all prompts of a
        list of rows, so that the text encoder comes only once; otherwise it does nothing."""
        lacking = [text for text in dict.fromkeys(prompts) if text not in self._states] if self.offload else []
        if not lacking:
            return
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
        """Pictures of each clip, (F, H, W, 3) uint8, and sound, (S,) float32, on the CPU; None where there are none."""
        if not self.offload:
            video, audio = self.codec.decode(z)
            return AV(None if video is None else [to_frames(x) for x in video], None if audio is None else [*audio])
        # One clip at a time, one piece of it at a time: of long clips the device never holds the pictures.
        pictures = None if z.video is None else [self._stream(x[None]) for x in z.video]
        sounds = None if z.audio is None else [self.codec.audio.decode(x[None])[0] for x in z.audio]
        self.codec.unload()
        return AV(pictures, sounds)

    def _stream(self, z: Float[Tensor, "1 c t h w"]) -> UInt8[np.ndarray, "f hp wp 3"]:
        return np.concatenate([to_frames(piece[0]) for piece in self.codec.video.stream(z)])

    def clip(self, row: Row, i: int, decoded: AV[Any], given: AV[Any], wanted: AV[bool]) -> Clip:
        """Row i of a decoded batch as a clip; a stream that was given whole comes back as it was given."""
        video, audio = given if decoded.video is None else AV(decoded.video[i], given.audio)
        if decoded.audio is not None:
            audio = fit(decoded.audio[i].float().cpu().numpy(), self.grid.samples)
        return Clip(
            video=video if wanted.video else None,
            audio=audio if wanted.audio else None,
            fps=self.grid.fps,
            sample_rate=self.grid.sample_rate,
            prompt=row.prompt,
            id=row.id,
        )

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device if self._device is None else self._device

    def autocast(self) -> torch.autocast:
        """bfloat16 where there is a GPU, or where it is asked for."""
        enabled = self.half or self.device.type == "cuda"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _held(self, stream: Stream, media: list[AV[Any]], like: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        given = {row: getattr(m, stream) for row, m in enumerate(media) if getattr(m, stream) is not None}
        if like is None or not given:
            return None, None
        clean = torch.zeros_like(like)
        mask = torch.zeros(like.shape[0], like.shape[2], dtype=torch.bool, device=like.device)
        for row, x in given.items():
            z = self._encode(stream, x)
            clean[row, :, : z.shape[1]], mask[row, : z.shape[1]] = z, True
        return clean, mask

    def _encode(self, stream: Stream, media: np.ndarray) -> Tensor:
        """(C, T, ...) latents of one clip's pictures or sound."""
        x = torch.tensor(media, device=self.device)[None]  # a copy: an array may be read-only
        if stream == "audio":
            return self.codec.audio.encode(x, self.grid.t_a)[0]
        return self.codec.video.encode(rearrange(x, "b f h w c -> b c f h w").float() / 127.5 - 1)[0]

    def _picture(self, image: Any, notes: list[str]) -> np.ndarray:
        """(1, H, W, 3) uint8 of a path or a picture of any size."""
        name = str(image) if isinstance(image, str | Path) else "the image"
        if isinstance(image, str | Path):
            from ccl.media import read_image

            image = read_image(image)
        image = array("the image", image, "(H, W, 3) uint8")
        if image.ndim != 3:
            raise ValueError(f"the image is {image.shape} {image.dtype}; it must be (H, W, 3) uint8")
        return self._fitted(image[None], name, notes)

    def _frames(self, video: Any, notes: list[str]) -> np.ndarray | None:
        """(F, H, W, 3) uint8 of a path, or of pictures of any size at the grid's rate."""
        if video is None:
            return None
        if isinstance(video, str | Path):
            return self._film(video, notes)
        wanted = f"({self.grid.frames}, H, W, 3) uint8, {self.grid.fps:g} pictures a second"
        video = array("the video", video, wanted)
        if video.ndim != 4 or len(video) != self.grid.frames:
            raise ValueError(f"the video is {video.shape} {video.dtype}; this model needs {wanted}")
        return self._fitted(video, "the video", notes)

    def _film(self, path: str | Path, notes: list[str]) -> np.ndarray | None:
        """The beginning of a file, on the grid."""
        from ccl.media import MediaError, first_picture, read_clip

        grid, alone = self.grid, AV(True, False)
        try:  # a little more than is needed, to see whether it goes on
            longer = replace(grid, frames=grid.frames + grid.stride_time)
            video = read_clip(path, grid=longer, require=alone).video
            assert video is not None
            video = video[: grid.frames]
            notes.append(f"{path} goes on after {grid.seconds:.2f} s; its first {grid.seconds:.2f} s were taken")
        except MediaError:
            video = read_clip(path, grid=grid, require=alone).video
        self._note_crop(first_picture(path), str(path), notes)
        return video

    def _fitted(self, pictures: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
        """Pictures in the grid's size: the largest centred part of that shape, resized."""
        from ccl.media import fit_image

        if pictures.shape[3] != 3 or pictures.dtype != np.uint8 or 0 in pictures.shape:
            raise ValueError(
                f"{name} has pictures of {pictures.shape[1:]} {pictures.dtype}; they must be (H, W, 3) uint8"
            )
        height, width = self.grid.height, self.grid.width
        if pictures.shape[1:3] == (height, width):
            return pictures
        self._note_crop(pictures[0], name, notes)
        return np.stack([fit_image(picture, height, width) for picture in pictures])

    def _note_crop(self, picture: np.ndarray, name: str, notes: list[str]) -> None:
        """Say which part of pictures like this one is taken, where their shape is not the grid's."""
        height, width, _ = picture.shape
        scale = min(height / self.grid.height, width / self.grid.width)
        tall, wide = round(scale * self.grid.height), round(scale * self.grid.width)
        if (tall, wide) != (height, width):
            notes.append(f"{name} is {width} x {height}; its middle {wide} x {tall} was taken")

    def _sound(self, audio: Any, notes: list[str]) -> np.ndarray | None:
        """Cut, or padded with silence, to the length of a clip."""
        if audio is None:
            return None
        name = str(audio) if isinstance(audio, str | Path) else "the sound"
        if isinstance(audio, str | Path):
            from ccl.media import read_audio

            audio = read_audio(audio, self.grid.sample_rate)
        needed = "mono samples (S,), floats in [-1, 1]"
        audio = array("the sound", audio, needed)
        if not is_sound(audio) or not len(audio):
            raise ValueError(f"the sound is {arguments.told(audio)}; this model needs {needed}")
        audio = audio.astype(np.float32)
        if not np.abs(audio).max() <= LOUDEST:
            raise ValueError(f"the sound reaches {np.abs(audio).max():g}; samples are from -1 to 1")
        seconds, wanted = len(audio) / self.grid.sample_rate, self.grid.seconds
        if len(audio) > self.grid.samples:
            notes.append(f"{name} lasts {seconds:.2f} s; its first {wanted:.2f} s were taken")
        elif len(audio) < self.grid.samples:
            notes.append(f"{name} lasts {seconds:.2f} s; silence follows, up to {wanted:.2f} s")
        return fit(audio, self.grid.samples)


def shared_stream(rows: Sequence[Row]) -> Stream | None:
    """The stream that all rows are given."""
    if not rows:
        raise ValueError("there is no prompt to generate from")
    given = {row.given for row in rows}
    if len(given) > 1:
        raise ValueError("the rows of a batch must all be given the same stream")
    return given.pop()


def place(device: str | torch.device) -> torch.device:
    """The device of that name. ValueError where there is none such here."""
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError) as error:  # as torch has it, for names, numbers and builds
        raise ValueError(f"there is no device {device!r} here; give cpu, or cuda where there is a GPU") from error


def array(name: str, given: Any, wanted: str) -> np.ndarray:
    """What is given as an array: an array, a tensor or nested lists. ValueError where it is none."""
    try:
        return np.asarray(given)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is {arguments.told(given)}; this model needs {wanted}") from error


def to_frames(video: Float[Tensor, "c f h w"]) -> UInt8[np.ndarray, "f h w c"]:
    """Pictures in [-1, 1] as bytes."""
    levels = ((video.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(levels, "c f h w -> f h w c").cpu().numpy()


def fit(audio: Float32[np.ndarray, " s"], samples: int) -> Float32[np.ndarray, " n"]:
    """Cut, or pad with silence, to a length: latents hold a whole number of blocks, a clip may not."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio))))
