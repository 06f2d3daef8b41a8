"""The clips of a study as its page has them: playable anywhere, under names that tell nothing.

A name follows from the study's seed, what it is for and the bytes of the file, so each clip is made once and a run that
was stopped goes on; who has neither the seed nor the files learns nothing from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ccl.evaluation.score import find
from ccl.files import machine_trouble, sha256
from ccl.media import MediaError, is_shown, read_natural, write_encoded, write_shown
from ccl.rng import seed_of
from ccl.rows import Row
from ccl.study.design import SAME, SHUFFLED, TRUE, Trial, drawn

Sources = Mapping[str, Mapping[str, Path]]  # the clip of each row that each system has, by the row's id


def sources(folders: Mapping[str, Path], rows: Sequence[Row]) -> dict[str, dict[str, Path]]:
    """The clips of each row that lie in these folders, where scores of them would look, too."""
    found: dict[str, dict[str, Path]] = {row.id: {} for row in rows}
    for method, folder in folders.items():
        for item in find(method, folder, rows):
            if item.path is not None:
                found[item.row.id][method] = item.path
    return found


@dataclass
class Clips:
    """Clips in the folder of a page.

    Args:
        place: of the clips.
        seed: of the study.
        names: of those that were made, by system and row, without their ending.
        converted: those, as `METHOD/ROW`, that had to be encoded anew.
    """

    place: Path
    seed: int
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    converted: list[str] = field(default_factory=list)

    def gather(
        self, methods: Sequence[str], rows: Sequence[Row], found: Sources, progress: Callable[..., None]
    ) -> dict[str, str]:
        """Make every system's clip of each row; the rows of which some system has none, with the reason."""
        left_out: dict[str, str] = {}
        for number, row in enumerate(rows):
            progress(number, len(rows), row.id)
            if lacking := [method for method in methods if method not in found[row.id]]:
                left_out[row.id] = f"{', '.join(lacking)} has no clip of it"
                continue
            before = len(self.converted)
            for method in methods:
                try:
                    self.names[method, row.id] = self.shown(found[row.id][method], method, row.id)
                except MediaError as error:
                    if machine_trouble(error):
                        raise
                    left_out[row.id] = f"{method}'s clip {error.reason}"
                    del self.converted[before:]  # the other systems' of this row
                    break
        progress(len(rows), len(rows))
        return left_out

    def shown(self, path: Path, method: str, row: str) -> str:
        """The name of a file's clip, which is made where it is not there yet. MediaError where it cannot be."""
        name = self.name(method, row, sha256(path))
        if not is_shown(path):
            self.converted.append(f"{method}/{row}")
        if not self.path(name).exists():
            write_shown(path, self.path(name))
        return name

    def same(self, methods: Sequence[str], rows: Sequence[Row], count: int) -> list[Trial]:
        """Checks: one clip on both sides."""
        rng = drawn(self.seed, SAME)
        made = []
        for number in rng.permutation(len(rows))[:count]:
            method, row = methods[int(rng.integers(len(methods)))], rows[number].id
            made.append(Trial(row, (method, method), (self.names[method, row],) * 2, SAME))
        return made

    def shuffled(self, rows: Sequence[Row], true: Mapping[str, Path], count: int) -> list[Trial]:
        """Checks: a true clip, and its pictures with the sound of another one that says something else.

        Both are encoded alike, so that nothing but the sound tells them apart.
        """
        rng = drawn(self.seed, SHUFFLED)
        order = [rows[place] for place in rng.permutation(len(rows)) if rows[place].id in true]
        made: list[Trial] = []
        for row in order:
            other = next((other for other in order[::-1] if is_other(row, other)), None)
            if other is None or len(made) == count:
                continue
            try:
                clips = self._two(true[row.id], true[other.id])
            except MediaError as error:
                if machine_trouble(error):
                    raise
                continue
            if clips:
                made.append(Trial(row.id, (TRUE, other.id), clips, SHUFFLED))
        return made

    def _two(self, path: Path, other: Path) -> tuple[str, str] | None:
        """The names of a clip and of its pictures with another's sound; None where one has no sound or pictures."""
        names = (self.name(TRUE, sha256(path)), self.name(SHUFFLED, sha256(path), sha256(other)))
        (clip, _), (second, _) = read_natural(path), read_natural(other)
        if clip.video is None or clip.audio is None or second.audio is None:
            return None
        sound = second.audio[: round(len(clip.video) / clip.fps * second.sample_rate)]
        for name, one in zip(names, (clip, replace(clip, audio=sound, sample_rate=second.sample_rate)), strict=True):
            if not self.path(name).exists():
                write_encoded(one, self.path(name))
        return names

    def name(self, *what: object) -> str:
        """A name that tells nothing."""
        return f"{seed_of('shown', self.seed, *what):016x}"

    def path(self, name: str) -> Path:
        """The file of that name."""
        return self.place / f"{name}.mp4"

    def keep(self, trials: Sequence[Trial]) -> None:
        """Remove the clips that no trial shows, those of rows that are left out."""
        used = {self.path(name) for trial in trials for name in trial.clips}
        for path in set(self.place.glob("*.mp4")) - used:
            path.unlink()


def is_other(row: Row, other: Row) -> bool:
    """Whether another row's sound is another sound: rows that are a pair share theirs."""
    paired = bool(row.pair) and row.pair == other.pair
    return row.id != other.id and not paired and (not row.speech or row.speech != other.speech)
