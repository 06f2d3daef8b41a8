"""`ccl doctor`: what is here, what will not work, and the command that mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ccl import __version__
from ccl.cli.as_json import add_json, say_json
from ccl.cli.machine import WSL, WSL_MEND, cores, cpu_name, memory, windows
from ccl.cli.parser import Parser

GB = 1e9
ROOM = 5e9  # bytes that a run of the embedded default and its clips take at most, shards included
# What an extra of pyproject.toml is for; those that only developers need are not told.
EXTRAS = {
    "eval": "speech recognition, faces, optical flow and the onnx metrics of `ccl evaluate`",
    "world": "the talking world's voice, so that `ccl demo` and configs/joint.yaml can make their clips",
    "ray": "`ccl shards encode --engine ray` and `ccl ablate --ray` on several machines",
    "gpu": "flash-attn; torch's own attention is taken without it",
    "lean": "torchao, for AdamW whose moments have 8 bits",
    "wandb": "`--trainer.logger wandb`",
    "demo": "gradio, for the page of `ccl serve`",
}
FETCH = "ccl weights fetch "
NEEDED = ("world",)  # that the README's first commands cannot do without
CODERS: dict[
    str, tuple[Literal["r", "w"], str]
] = {  # of ffmpeg, as PyAV brings it: name, "w" writes and "r" reads, what is without it
    "libx264": ("w", "no mp4 can be written"),
    "aac": ("w", "no mp4 can have sound"),
    "h264": ("r", "most mp4 files cannot be read"),
    "hevc": ("r", "HEVC files (of phones) cannot be read"),
    "vp9": ("r", "WebM files cannot be read"),
    "libdav1d": ("r", "AV1 files cannot be read"),
    "mp3": ("r", "mp3 sound cannot be read"),
    "flac": ("r", "FLAC sound cannot be read"),
    "opus": ("r", "Opus sound cannot be read"),
}


@dataclass(frozen=True)
class Found:
    """One thing that was looked at.

    Args:
        what: its name.
        said: how it is.
        fine: whether it is as it should be.
        needed: whether something that everybody uses will not work; what is optional may be absent.
        mend: the command, where there is one.
    """

    what: str
    said: str
    fine: bool = True
    needed: bool = True
    mend: str = ""


def main(argv: list[str]) -> int:
    parser = Parser(
        "doctor",
        "Versions, devices, codecs, weights, disk: what will not work here, and the command that mends it. Ends with 1 "
        "where something is missing that everybody needs.",
        "ccl doctor",
        "ccl doctor --json",
    )
    add_json(parser)
    args = parser.parse(argv)
    sections = {name: list(look()) for name, look in SECTIONS.items()}
    ill = any(one.needed and not one.fine for found in sections.values() for one in found)
    if args.json:
        told = {name: [asdict(one) for one in found] for name, found in sections.items()}
        say_json({"ccl": __version__, "fine": not ill, **told})
    else:
        sys.stdout.write("\n".join(lines(sections)) + "\n")
    return int(ill)


def lines(sections: dict[str, list[Found]]) -> Iterator[str]:
    """As they are printed: all that is there, then what to do."""
    width = max(len(one.what) for found in sections.values() for one in found)
    for name, found in sections.items():
        yield name.capitalize()
        for one in found:
            yield f"  {mark(one)} {one.what:<{width}}  {one.said}"
    for needed, title in ((True, "To mend"), (False, "For what is optional")):
        mends = [one.mend for found in sections.values() for one in found if not one.fine and one.needed == needed]
        if commands := together(mends):
            yield f"{title}:"
            yield from (f"  {command}" for command in commands)


def mark(one: Found) -> str:
    """Of a line: fine, missing though optional, or missing."""
    return " " if one.fine else "!" if one.needed else "-"


# What is looked at ---------------------------------------------------------------------------------------------------


def versions() -> Iterator[Found]:
    """Python, and each package that CCL requires."""
    yield Found("python", f"{platform.python_version()}, {platform.platform()}")
    if windows():
        yield Found("system", WSL, fine=False, mend=WSL_MEND)
    yield Found("ccl", f"{__version__}, {Path(__file__).parents[1]}")
    if (required := requirements()) is None:
        yield Found("packages", "ccl is not installed, so what it requires is not known", fine=False, mend="make setup")
        return
    for one in sorted(required, key=lambda one: one.name):
        here = version(one.name)
        fits = here is not None and one.specifier.contains(here, prereleases=True)
        wanted = "" if fits else f"; {one.specifier} is needed"
        asked = f"{one.name}{one.specifier}"
        yield Found(one.name, f"{here or 'not installed'}{wanted}", fits, mend=f"pip install '{asked}'")


def extras() -> Iterator[Found]:
    """What can be installed beside it."""
    for extra, use in EXTRAS.items():
        absent = [one.name for one in requirements(extra) or () if version(one.name) is None]
        said = use if not absent else f"without {', '.join(absent)}: {use}"
        yield Found(f"ccl[{extra}]", said, not absent, extra in NEEDED, f"pip install 'ccl[{extra}]'")


def devices() -> Iterator[Found]:
    """What computes."""
    import torch

    size = memory()
    yield Found("CPU", f"{cpu_name()}, {cores()} cores" + ("" if size is None else f", {size / GB:.0f} GB of memory"))
    for index in range(torch.cuda.device_count()):
        told = torch.cuda.get_device_properties(index)
        bf16 = "" if torch.cuda.is_bf16_supported() else ", no bfloat16"
        yield Found(f"GPU {index}", f"{told.name}, {told.total_memory / GB:.0f} GB, CUDA {torch.version.cuda}{bf16}")
    if torch.cuda.is_available():
        return
    there = Path("/proc/driver/nvidia/version").is_file() or shutil.which("nvidia-smi") is not None
    if there and torch.version.cuda is None:
        yield Found(
            "GPU",
            "there is a driver, but torch is built for CPUs alone",
            fine=False,
            mend="pip install --force-reinstall torch --index-url https://pypi.org/simple",
        )
    elif there:
        yield Found("GPU", f"there is a driver, but torch (CUDA {torch.version.cuda}) does not reach it", fine=False)
    else:
        yield Found("GPU", "none; the embedded default needs none, the paper's sizes do")


def codecs() -> Iterator[Found]:
    """Of films and sound."""
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    for name, (mode, without) in CODERS.items():
        try:
            Codec(name, mode)
        except UnknownCodecError:
            yield Found(name, f"not in this PyAV: {without}", fine=False, mend="pip install --force-reinstall av")
        else:
            yield Found(name, "writes" if mode == "w" else "reads")


def models() -> Iterator[Found]:
    """What ships with the package."""
    root = Path(__file__).parents[1] / "checkpoints"
    for name in ("embedded", "streams/video", "streams/audio"):
        here = (root / name / "config.yaml").is_file()
        said = str(root / name) if here else f"not in {root}"
        yield Found(f"checkpoint {name}", said, here, mend="pip install --force-reinstall ccl")


def metrics() -> Iterator[Found]:
    """What `ccl evaluate` can measure here, each by its own word."""
    from ccl.evaluation import METRICS

    for name, cls in METRICS.items():
        missing = cls().missing()
        yield Found(name, missing or "can be measured", not missing, needed=False, mend=command_of(missing))


def disk() -> Iterator[Found]:
    """Room, where things are written."""
    from ccl.weights.catalogue import cache

    for what, folder in (("here", Path.cwd()), ("weights", cache())):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK)
        said = f"{free / GB:.0f} GB free" + ("" if writable else ", and nothing may be written") + f", {folder}"
        yield Found(what, said, writable and (free >= ROOM or what != "here"))


SECTIONS: dict[str, Callable[[], Iterator[Found]]] = {
    "packages": versions,
    "extras": extras,
    "devices": devices,
    "codecs": codecs,
    "models": models,
    "metrics": metrics,
    "disk": disk,
}


def version(name: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements(extra: str = "") -> list[Any] | None:
    """Of ccl itself, or of one of its extras alone; None where it is not installed as a package."""
    from packaging.requirements import Requirement

    try:
        found = [Requirement(line) for line in metadata.requires("ccl") or ()]
    except metadata.PackageNotFoundError:
        return None
    usual = [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]
    if not extra:
        return usual
    return [one for one in found if one not in usual and one.marker and one.marker.evaluate({"extra": extra})]


def command_of(sentence: str) -> str:
    """The command in a sentence that says what is missing."""
    found = re.search(r"`(ccl [^`]+)`|(pip install '[^']+')", sentence)
    return "" if found is None else found[1] or found[2]


def together(commands: Iterable[str]) -> list[str]:
    """Commands, each once, and those that fetch weights as one."""
    each = list(dict.fromkeys(filter(None, commands)))
    names = [one.removeprefix(FETCH) for one in each if one.startswith(FETCH)]
    return [one for one in each if not one.startswith(FETCH)] + ([FETCH + " ".join(names)] if names else [])
