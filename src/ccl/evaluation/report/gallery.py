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

from PIL import Image

from ccl.evaluation.tables.results import Results
from ccl.files import machine_trouble
from ccl.media import MediaError, first_picture

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
    found: Mapping[tuple[str, str], Path],
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
        clips = []
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
            if key in found:
                clip |= shown_clip(found[key], names[key], folder, embedded)
            else:
                clip["note"] = "no file"
            clips.append(clip)
        subset = row.subset or ("other" if len(results.subsets) > 1 else "")
        samples.append(
            {
                "id": row.id,
                "subset": subset,
                "prompt": row.prompt,
                "speech": row.speech,
                "lang": row.lang,
                "clips": clips,
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


def shown_clip(path: Path, name: str, folder: Path, embedded: bool) -> dict[str, Any]:
    """How the page shows a file: its first picture or why there is none, and where its bytes are."""
    clip: dict[str, Any] = {"type": TYPES.get(path.suffix.lower(), "video/mp4"), "name": path.name}
    if embedded:
        clip["data"] = name
    else:
        clip["href"] = quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())
    if clip["type"].startswith("audio"):
        return clip | {"note": "sound alone"}
    try:
        clip["poster"] = poster(path)
    except MediaError as error:
        if machine_trouble(error):
            raise
        clip["note"] = error.reason
    return clip


def poster(path: Path) -> str:
    """The first picture as a small JPEG, in a data URI. MediaError where there is none."""
    picture, file = Image.fromarray(first_picture(path)), io.BytesIO()
    picture.thumbnail((POSTER, POSTER), Image.Resampling.BOX, reducing_gap=2)
    picture.save(file, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
