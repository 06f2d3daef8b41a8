"""Single pictures, and the animated GIF, in and out of files (Pillow)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from ccl.files import replacing_path
from ccl.media.errors import faults

# What Pillow decodes by itself; for some others, such as EPS, it starts programs.
_FORMATS = {"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP"}


def read_image(path: str | Path, height: int | None = None, width: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """A picture as RGB, turned as its EXIF says; with a size, fitted to it.

    Raises:
        MediaError: the file is absent or no picture of a usual format.
        OSError, MemoryError: the machine is in trouble.
    """
    Image.init()
    formats = sorted(_FORMATS & Image.OPEN.keys())
    with faults(path, str(path), "is not a picture that can be read"), Image.open(path, formats=formats) as picture:
        upright = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    return upright if height is None or width is None else fit_image(upright, height, width)


def fit_image(picture: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "hp wp 3"]:
    """The largest centred part of a picture that has this shape, resized with anti-aliasing."""
    return np.array(ImageOps.fit(Image.fromarray(picture), (width, height), Image.Resampling.BOX))


def write_png(path: str | Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """An RGB picture, lossless."""
    with replacing_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def gif_bytes(video: UInt8[np.ndarray, "t h w 3"], fps: float, *, every: int = 2) -> bytes:
    """An endless animated GIF of every `every`-th frame, for TensorBoard, which shows no mp4."""
    frames = [Image.fromarray(frame) for frame in video[::every]]
    file = io.BytesIO()
    # GIF counts in hundredths of a second.
    duration = max(20, round(100 * every / fps) * 10)
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return file.getvalue()
