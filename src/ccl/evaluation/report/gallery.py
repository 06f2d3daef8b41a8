"""The samples of the report as data: scores, reasons and words of each clip, its first picture, where its bytes are."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from jaxtyping import Float
from PIL import Image

from ccl.evaluation.report.clips import Key, Shown
from ccl.evaluation.tables.results import Results
from ccl.files import machine_trouble
from ccl.media import MediaError, first_picture
from ccl.media.browser import PARTS

POSTER = 320  # pixels of the longer side of a clip's first picture, which the page shows until the clip is played
Order = Literal["worst", "best", "apart", "id"]  # of samples
TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo", ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".m4a": "audio/mp4",
}  # fmt: skip


def as_json(value: Any) -> str:
    """JSON that cannot end the script it stands in, nor open a comment there."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def names_of(results: Results) -> dict[tuple[str, str], str]:
    """The name in the page of each clip, by (method, id)."""
    keys = ((method, row.id) for row in results.test for method in results.methods)
    return {key: f"clip{place}" for place, key in enumerate(keys)}


def data(
    results: Results,
    clips: Mapping[Key, Shown],
    folder: Path,
    embedded: bool,
    colours: Mapping[str, int],
    pairs: Sequence[tuple[str, str]] = (),
    order: Order = "worst",
) -> dict[str, Any]:
    """What the samples are made from; they can be sorted by the differences of `pairs`, and at first are by `order`."""
    names, reasons = names_of(results), dict[str, int]()
    columns = results.shown
    text = {(row["method"], row["id"]): row["text"] for row in results.rows if row.get("text") is not None}
    samples = []
    for place, row in enumerate(results.test):
        row_clips = []
        for method in results.methods:
            key = (method, row.id)
            numbers = {
                c.name: results.values[method, c.name][place] for c in columns if (method, c.name) in results.values
            }
            clip: dict[str, Any] = {
                "values": {name: round(float(v), 6) for name, v in numbers.items() if v == v},
            }
            for name, why in (("why", results.reasons), ("apart", results.inapplicable)):
                clip[name] = {
                    c.name: reasons.setdefault(reason, len(reasons))
                    for c in columns
                    if (reason := why.get((method, c.name), {}).get(row.id))
                }
            if key in text:
                clip["text"] = text[key]
            if key in clips:
                clip |= shown_clip(clips[key], names[key], folder, embedded)
            else:
                clip["note"] = "no file"
            row_clips.append(clip)
        subset = row.subset or ("other" if len(results.subsets) > 1 else "")
        samples.append(
            {
                "id": row.id,
                "subset": subset,
                "prompt": row.prompt,
                "speech": row.speech,
                "lang": row.lang,
                "clips": row_clips,
            }
        )
    keys = ("name", "title", "better", "digits", "percent")
    return {
        "methods": [{"name": method, "colour": colours[method]} for method in results.methods],
        "columns": [
            {key: getattr(c, key) for key in keys}
            for c in columns
            if any((m, c.name) in results.values for m in results.methods)
        ],
        "pairs": [[results.methods.index(name) for name in two] for two in pairs],
        "order": order,
        "subsets": list(results.subsets),
        "reasons": list(reasons),
        "samples": samples,
    }


def shown_clip(clip: Shown, name: str, folder: Path, embedded: bool) -> dict[str, Any]:
    """How the page shows a clip: its first picture or why there is none, its curves, and where its bytes are."""
    path = clip.path
    told: dict[str, Any] = {"type": TYPES.get(path.suffix.lower(), "video/mp4"), "name": path.name}
    if clip.look:
        told["seconds"] = round(clip.look.seconds, 3)
        told["wave"] = curve(np.sqrt(clip.look.loudness))  # a voice is seen beside a bang
        if clip.look.strange:
            told["from"] = clip.look.strange
    if clip.mouth is not None:
        told["mouth"] = curve(clip.mouth / max(float(clip.mouth.max()), 1e-9))
    if embedded:
        told["data"] = name
    else:
        told["href"] = quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())
    if told["type"].startswith("audio"):
        return told | {"note": "sound alone"}
    try:
        told["poster"] = poster(path)
    except MediaError as error:
        if machine_trouble(error):
            raise
        told["note"] = error.reason
    return told


def curve(values: Float[np.ndarray, " n"]) -> str:
    """Numbers in 0..1 as bytes in base64, no more than PARTS of them."""
    if len(values) > PARTS:
        values = np.interp(np.linspace(0, len(values) - 1, PARTS), np.arange(len(values)), values)
    return base64.b64encode(np.round(255 * np.clip(values, 0, 1)).astype(np.uint8).tobytes()).decode()


def poster(path: Path) -> str:
    """The first picture as a small JPEG, in a data URI. MediaError where there is none."""
    picture, file = Image.fromarray(first_picture(path)), io.BytesIO()
    picture.thumbnail((POSTER, POSTER), Image.Resampling.BOX, reducing_gap=2)
    picture.save(file, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
