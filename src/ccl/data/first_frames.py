"""First pictures of a test set, as files: drawn by a text-to-image pipeline, or the user's own brought to size.

Pictures of people cannot be shipped; what they are drawn from can. images/recipe.json says what every picture follows
from (model, revision, steps, guidance, prompt, seed) and its sha256, so that a stopped run goes on, two people can tell
whether they score the same pictures, and a folder drawn otherwise is refused instead of being mixed.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ccl.files import one_writer, sha256, sweep, write_whole

RECIPE = "recipe.json"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Frame:
    """A picture to draw.

    Args:
        name: of its file, without the suffix.
        prompt: what it shows.
        seed: of its noise.
    """

    name: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Painter:
    """What draws.

    Args:
        draw: a picture of a prompt and a seed.
        recipe: all that its pictures depend on but prompt and seed; JSON.
    """

    draw: Callable[[str, int], Image.Image]
    recipe: dict[str, Any]


def draw_frames(
    frames: Sequence[Frame],
    painter: Painter,
    folder: str | Path,
    *,
    size: tuple[int, int],
    overwrite: bool = False,
    progress: Report | None = None,
) -> list[Path]:
    """Draw what is not there yet: folder/NAME.png, each written whole, and the recipe after each.

    Args:
        frames: what to draw.
        painter: what draws.
        folder: of the files; made if missing.
        size: (width, height); a picture drawn in another size is centre-cropped and resized.
        overwrite: draw all anew, whatever the folder holds.
        progress: called with (pictures done, of how many, name of the last).

    Raises:
        ValueError: the folder holds pictures of another recipe, or some that no recipe speaks of.
    """
    folder = Path(folder)
    made = {**painter.recipe, "size": list(size)}
    with one_writer(folder):
        sweep(folder)
        images: dict[str, dict[str, Any]] = {}
        if not overwrite:
            images = known_images(folder, made)
            strangers = [f.name for f in frames if f.name not in images and (folder / f"{f.name}.png").exists()]
            if strangers:
                raise ValueError(
                    f"{folder} holds {strangers[0]}.png, which no recipe speaks of; --overwrite replaces it"
                )
        for number, frame in enumerate(frames, 1):
            path, entry = folder / f"{frame.name}.png", {"prompt": frame.prompt, "seed": frame.seed}
            if (
                not (known := images.get(frame.name))
                or not path.is_file()
                or known != {**entry, "sha256": sha256(path)}
            ):
                png = png_of(fitted(painter.draw(frame.prompt, frame.seed), size))
                images[frame.name] = {**entry, "sha256": hashlib.sha256(png).hexdigest()}
                write_recipe(folder, made, images)  # first, so that no picture is ever without its entry
                write_whole(path, png)
            if progress is not None:
                progress(number, len(frames), frame.name)
    return [folder / f"{frame.name}.png" for frame in frames]


def take_frames(
    frames: Sequence[Frame],
    source: str | Path,
    folder: str | Path,
    *,
    size: tuple[int, int],
    overwrite: bool = False,
    progress: Report | None = None,
) -> list[Path]:
    """Bring the user's own pictures to size: source/NAME.png (or .jpg, .jpeg, .webp) to folder/NAME.png.

    Raises:
        ValueError: pictures are missing or cannot be read, source and folder are the same, or the folder holds drawn
            pictures; then nothing is written.
    """
    source, folder = Path(source), Path(folder)
    if not source.is_dir():
        raise ValueError(f"there is no folder of pictures {source}")
    if folder.exists() and source.samefile(folder):
        raise ValueError(f"{source} is where the pictures go to; keep your own somewhere else, they would be replaced")
    made = {"own": True, "size": list(size)}
    if not overwrite:
        known_images(folder, made)
    found = {frame.name: own_picture(source, frame.name) for frame in frames}
    if missing := [name for name, path in found.items() if path is None]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{source} lacks {len(missing)} of {len(frames)} pictures (as .png, .jpg or .webp): "
            f"{', '.join(missing[:3])}{more}"
        )
    pictures = [(name, path) for name, path in found.items() if path is not None]
    for _, path in pictures:
        read_picture(path)  # all are looked at before the first is written
    images: dict[str, dict[str, Any]] = {}
    with one_writer(folder):
        sweep(folder)
        for number, (name, path) in enumerate(pictures, 1):
            png = png_of(fitted(read_picture(path), size))
            images[name] = {
                "file": path.name,
                "file_sha256": sha256(path),
                "sha256": hashlib.sha256(png).hexdigest(),
            }
            write_recipe(folder, made, images)
            write_whole(folder / f"{name}.png", png)
            if progress is not None:
                progress(number, len(pictures), name)
    return [folder / f"{name}.png" for name, _ in pictures]


def text_to_image(
    model: str,
    *,
    revision: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    size: tuple[int, int] = (640, 352),
    device: str = "cpu",
) -> Painter:
    """A diffusers text-to-image pipeline. bfloat16 on a GPU, float32 on a CPU; weights from safetensors alone.

    Args:
        model: a name on the Hugging Face hub, or a folder as `save_pretrained` writes it.
        revision: branch, tag or commit of the hub's; the recipe names the commit it was.
        steps: of the sampler; None is the pipeline's own number.
        guidance: classifier-free scale; None is the pipeline's own.
        size: (width, height) that the pipeline draws.
        device: where it runs.

    Raises:
        ValueError: one sentence: no such folder, no pipeline in it, offline.
    """
    import diffusers

    folder = local_folder(model, revision)
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    settings: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    try:
        pipe = diffusers.AutoPipelineForText2Image.from_pretrained(str(folder), **settings).to(device)
    except (ValueError, OSError) as error:
        raise ValueError(f"{model} is no text-to-image pipeline that diffusers can load: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    takes = inspect.signature(pipe.__call__).parameters
    asked = {"num_inference_steps": steps, "guidance_scale": guidance}
    for key, value in asked.items():
        if value is not None and key not in takes:
            raise ValueError(f"{type(pipe).__name__} takes no {key}")
    given = {key: value for key, value in asked.items() if value is not None}
    used = {key: given.get(key, takes[key].default) for key in asked if key in takes}

    def draw(prompt: str, seed: int) -> Image.Image:
        noise = torch.Generator().manual_seed(seed)  # on the CPU, so that devices agree
        out = pipe(prompt=prompt, width=size[0], height=size[1], generator=noise, **given)
        if any(getattr(out, "nsfw_content_detected", None) or ()):
            raise ValueError(f"the safety checker of {model} blanked the picture of {prompt!r}; take another --seed")
        return out.images[0]

    return Painter(
        draw,
        {
            "model": model,
            "revision": folder.name if folder.parent.name == "snapshots" else None,
            "pipeline": type(pipe).__name__,
            "diffusers": diffusers.__version__,
            "steps": used.get("num_inference_steps"),
            "guidance": used.get("guidance_scale"),
            "drawn": list(size),
            "dtype": str(dtype).removeprefix("torch."),
        },
    )


def local_folder(model: str, revision: str | None) -> Path:
    """Where the pipeline lies, fetched from the hub if it is not a folder.

    Raises:
        ValueError: it cannot be had, or the folder holds none.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ValueError(f"{folder} holds no diffusers pipeline: there is no model_index.json")
        return folder
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ValueError(f"there is no folder {model}, and on the hub a pipeline is named OWNER/NAME")
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(model, revision=revision, use_safetensors=True))
    except Exception as error:  # the hub's client raises a dozen kinds, offline and for a wrong name
        raise ValueError(
            f"the text-to-image pipeline {model} is neither in the local cache nor to be had from huggingface.co "
            "(offline, no such name, or a licence to be accepted there); --pipeline also takes a local folder, "
            "and --images DIR your own pictures"
        ) from error


def known_images(folder: Path, made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Entries of the folder's recipe; {} without one. ValueError where it is another recipe than `made`."""
    path = folder / RECIPE
    if not path.is_file():
        return {}
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        before, images = dict(recipe["made"]), dict(recipe["images"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no recipe of pictures; --overwrite replaces it") from error
    if before != made:
        key = next(key for key in sorted({*before, *made}) if before.get(key) != made.get(key))
        raise ValueError(
            f"{folder} holds pictures made otherwise ({key} {before.get(key)}, not {made.get(key)}); "
            "give another folder, or --overwrite"
        )
    return images


def write_recipe(folder: Path, made: dict[str, Any], images: dict[str, dict[str, Any]]) -> None:
    """folder/recipe.json, whole."""
    recipe = {"made": made, "images": dict(sorted(images.items()))}
    write_whole(folder / RECIPE, json.dumps(recipe, ensure_ascii=False, indent=1) + "\n")


def own_picture(folder: Path, name: str) -> Path | None:
    """The file of that name with one of the suffixes, in either case."""
    names = [folder / f"{name}{suffix}" for end in SUFFIXES for suffix in (end, end.upper())]
    return next((path for path in names if path.is_file()), None)


def read_picture(path: Path) -> Image.Image:
    """A picture of any kind as RGB, turned as its EXIF says. ValueError names the file that is none."""
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that can be read") from error


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Centre-cropped to the shape of `size` (width, height) and resized to it."""
    rgb = picture.convert("RGB")
    return rgb if rgb.size == size else ImageOps.fit(rgb, size, Image.Resampling.LANCZOS)


def png_of(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
