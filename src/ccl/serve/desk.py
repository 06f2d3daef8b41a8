"""Where requests become clips, one after the other, on one pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any

from ccl.generation import Pipeline
from ccl.generation.generate import describe, describe_row, write
from ccl.rows import MEDIA
from ccl.serve.asked import WANTED, Asked, Bounds
from ccl.serve.curves import curves
from ccl.serve.folder import Folder

ENDING = "the server is being ended"


@dataclass(frozen=True)
class Made:
    """A finished clip.

    Args:
        path: of the file; its record lies beside it.
        drawing: SVG of its mouth and sound.
        notes: sentences on what one may not expect.
    """

    path: Path
    drawing: str
    notes: list[str] = field(default_factory=list)

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".json")


@dataclass(frozen=True)
class Desk:
    """Makes what is asked for.

    Args:
        pipe: the model.
        folder: of the files.
        bounds: of what one request may ask for.
    """

    pipe: Pipeline
    folder: Folder
    bounds: Bounds = field(default_factory=Bounds)
    _turn: Lock = field(default_factory=Lock, repr=False)
    _ended: Event = field(default_factory=Event, repr=False)

    def end(self) -> None:
        """Make nothing any more; the clip that is being made ends with its step, and nothing of it is left."""
        self._ended.set()
        with self._turn:
            return

    def make(self, asked: Asked, progress: Callable[[int, int], None] | None = None) -> list[Made]:
        """The clips of a request, one for each of its sides.

        Args:
            asked: for.
            progress: called with (steps done, steps), over all clips.

        Raises:
            ValueError: in the page's words, what does not fit; nothing is sampled then.
        """
        try:
            ids = [self.folder.new(".mp4").stem for _ in asked.sides]
            rows = [asked.row(side, id) for side, id in zip(asked.sides, ids, strict=True)]
            how = [asked.settings(side, self.pipe.guidance, self.bounds) for side in asked.sides]
            suffix = ".mp4" if WANTED[asked.wanted].video else ".wav"
            made = []
            with self._turn:
                for place, (row, settings) in enumerate(zip(rows, how, strict=True)):

                    def told(done: int, steps: int, place: int = place) -> None:
                        if self._ended.is_set():
                            raise ValueError(ENDING)
                        if progress is not None:
                            progress(place * steps + done, len(rows) * steps)

                    (clip,) = self.pipe.generate([row], **settings, progress=told)
                    notes = [asked.plain(note.replace(f"{row.id}: ", "")) for note in clip.meta.get("notes", ())]
                    clip = replace(clip, meta={**clip.meta, **({"notes": notes} if notes else {})})
                    sent: dict[str, Any] = {
                        key: Path(path).name for key in MEDIA if (path := getattr(row, key)) is not None
                    }
                    record = {**describe_row(replace(row, **sent)), **describe(self.pipe, **settings)}
                    path = self.folder.clips / f"{row.id}{suffix}"
                    write(clip, path, record)
                    made.append(Made(path, curves(clip), notes))
                self.folder.clean()
            return made
        except ValueError as error:
            words = asked.plain(str(error))
            for id in ids:
                words = words.removeprefix(f"{id}: ")
            raise ValueError(words) from error
