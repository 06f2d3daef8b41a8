"""What a batch of rows asks for, found out before anything is sampled: on which trained terms, in which windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ccl import arguments
from ccl.generation.given import LONGEST, Media, film_of, read
from ccl.generation.terms import Asked, Trained
from ccl.generation.windows import Windows, pictures_of, shared_seconds
from ccl.grid import Grid
from ccl.rows import NAMES, Row
from ccl.tasks import Part, Term
from ccl.types import AV, STREAMS, Stream


@dataclass(frozen=True)
class Order:
    """What a batch of rows asks for.

    Args:
        grid: of a window.
        given: the stream that is given whole, if any.
        generated: the streams that are made.
        shows: whether the network is shown the first picture: then it is no latent frame of the clip's.
        begun: whether the clips go on from others, or lead to them.
        left: whether they lead to them.
        frames: pictures of each clip, where it was asked for.
    """

    grid: Grid
    given: Stream | None
    generated: AV[bool]
    shows: bool
    begun: bool
    left: bool
    frames: int | None

    @staticmethod
    def of(rows: Sequence[Row], grid: Grid, wanted: AV[bool], *, shown: bool, seconds: float | None) -> Order:
        """The order of rows that share a generation task.

        Args:
            rows: to make.
            grid: of the model.
            wanted: the streams of the clips.
            shown: whether the network is shown the first picture of its clips.
            seconds: of each clip.

        Raises:
            ValueError: rows do not go together, or what they ask for cannot be made.
        """
        given, generated = streams_of(rows, wanted)
        begun = rows[0].prefix is not None or rows[0].suffix is not None
        order = Order(
            grid,
            given,
            generated,
            shown and (generated.video or given == "video"),
            begun,
            rows[0].suffix is not None,
            None if seconds is None else frames_of(seconds, grid),
        )
        if seconds is not None and not begun and (order.frames or 0) < grid.frames:
            raise ValueError(f"seconds is {seconds:g}; clips of this model last {grid.seconds:.2f} s at least")
        if order.longer and any(row.last_image is not None for row in rows):
            raise ValueError(f"a last image is given; that goes with clips of one window, of {grid.seconds:.2f} s")
        return order

    @property
    def present(self) -> AV[bool]:
        """The streams that take part."""
        return AV(*(made or s == self.given for s, made in zip(STREAMS, self.generated, strict=True)))

    @property
    def longer(self) -> bool:
        """Whether there are windows that share something with what is there."""
        return self.begun or (self.frames or 0) > self.grid.frames

    def terms(self, rows: Sequence[Row], trained: Trained, task: str | None) -> list[tuple[Term, str]]:
        """The terms of the first window and of those that go on from it, and what of each was not trained.

        Args:
            rows: to make.
            trained: terms.
            task: the name of that of the first window; later ones take what suits.

        Raises:
            ValueError: there is none.
        """
        found = []
        if not self.begun:
            parts = [parts_of(row, self.generated, shown=self.shows) for row in rows]
            found.append(trained.near(Asked(self.given, self.generated, parts), task))
        if self.longer:
            part: Part = "suffix" if self.left else "prefix"
            each: AV[Part | None] = AV(*(part if made else None for made in self.generated))
            found.append(trained.near(Asked(self.given, self.generated, [each]), task if self.begun else None))
        return found

    def plans(self, rows: Sequence[Row], term: Term, overlap: float | None, notes: Sequence[list[str]]) -> list[Plan]:
        """What is there of each clip, what it is given, and the windows that it takes.

        Args:
            rows: to make.
            term: of the last window.
            overlap: seconds that windows share; None is what the term was trained with.
            notes: of each row, which get a sentence for each thing that was cut, padded or cropped.

        Raises:
            ValueError: there is a clip already as long as was asked for; nothing can be shared.
        """
        return [self._plan(row, term, overlap, of_row) for row, of_row in zip(rows, notes, strict=True)]

    def _plan(self, row: Row, term: Term, overlap: float | None, notes: list[str]) -> Plan:
        grid = self.grid
        if not self.longer:
            return Plan(read(row, grid, notes), self._prompts(row, 1), None, None, 0, grid.frames)
        film = film_of(row.suffix if self.left else row.prefix, grid, self.generated, notes) if self.begun else None
        there = grid.frames if film is None else pictures_of(film, grid.fps, grid.sample_rate)
        share = shared_seconds(term, left=self.left) if overlap is None else overlap
        windows = Windows.sharing(share, there, grid, left=self.left)
        frames = there + windows.new if self.frames is None else self.frames
        if frames <= there:
            has, asked = there / grid.fps, frames / grid.fps
            raise ValueError(f"{row.id}: the given clip lasts {has:.2f} s, and {asked:.2f} s were asked for in all")
        count = windows.count(there, frames)
        # A stream that is given whole is read as far as the last window reaches.
        whole = grid if film is not None else grid.resized(frames=grid.frames + count * windows.new)
        prompts = self._prompts(row, count + (film is None))
        if row.then and (cut := there + count * windows.new - frames):
            last, most = ("first" if self.left else "last"), (frames + cut) / grid.fps
            notes.append(
                f"{cut / grid.fps:.3g} of the {windows.new / grid.fps:.3g} s that the {last} window adds are cut, and "
                f"what its prompt asks for may lie there; {most:.4g} s would keep it whole"
            )
        return Plan(read(row, whole, notes), prompts, film, windows, count, frames)

    def _prompts(self, row: Row, windows: int) -> Sequence[str]:
        """The prompt of each window, in the order in which they are made."""
        if not row.then:
            return [row.prompt] * windows
        prompts = [row.prompt, *row.then]
        if len(prompts) != windows:
            are = f"{windows} windows" if windows > 1 else "one window"
            raise ValueError(f"{row.id}: {len(prompts)} prompts are given for {are}; give one for each, or one for all")
        return prompts[::-1] if self.left else prompts


@dataclass(frozen=True)
class Plan:
    """How one clip comes about.

    Args:
        media: that it is given, whole streams as long as all windows.
        prompts: of its windows, in the order in which they are made.
        film: the clip that it goes on from or leads to: video (F, H, W, 3) uint8 and audio (S,); None without one.
        windows: how windows follow each other; None where there is but one.
        count: windows that go on from what is there.
        frames: pictures of the clip.
    """

    media: Media
    prompts: Sequence[str]
    film: AV[Any] | None
    windows: Windows | None
    count: int
    frames: int

    def given(self, order: Order, number: int, shared: AV[Any] | None) -> Media:
        """What a window is given.

        Args:
            order: of the batch.
            number: of the window that goes on from others, from 0.
            shared: what it shares with what is there; None for the window that begins the clip.
        """
        if self.windows is None:
            return self.media
        if shared is None:
            return self.media.window(order.given, 0, order.grid)
        if self.film is not None:
            return Media(end=shared) if order.left else Media(shared)
        whole = self.media.window(order.given, (number + 1) * self.windows.new, order.grid).start
        return Media(AV(*(w if s == order.given else x for s, w, x in zip(STREAMS, whole, shared, strict=True))))

    def finished(self, film: AV[Any], order: Order) -> AV[Any]:
        """The clip as it is handed over: as long as was asked for, at its end where it leads to another, and with the
        stream that was given whole."""
        grid = order.grid
        streams = zip(STREAMS, self.media.start, film, strict=True)
        whole: AV[Any] = AV(*(given if s == order.given else x for s, given, x in streams))
        ends = AV(self.frames, grid.samples_of(self.frames))
        return AV.zip(lambda x, n: x[-n:] if order.left else x[:n], whole, ends) if self.windows else whole

    @property
    def seams(self) -> list[int]:
        """The pictures before which windows meet."""
        if self.windows is None:
            return []
        grid = self.windows.grid
        first = grid.frames if self.film is None else pictures_of(self.film, grid.fps, grid.sample_rate)
        return self.windows.seams(first, self.count, self.frames)


def grown(
    films: Sequence[AV[Any]],
    plans: Sequence[Plan],
    make: Callable[[int, list[int], list[AV[Any]]], list[AV[Any]]],
) -> list[AV[Any]]:
    """Clips with all their windows.

    Args:
        films: what there is of each.
        plans: of each.
        make: makes the windows of one round, from its number, the clips that take part and what they share with them.
    """
    films = list(films)
    for number in range(max(plan.count for plan in plans)):
        some = [(i, plan.windows) for i, plan in enumerate(plans) if plan.windows and number < plan.count]
        made = make(number, [i for i, _ in some], [windows.shared(films[i]) for i, windows in some])
        for (i, windows), window in zip(some, made, strict=True):
            films[i] = windows.joined(films[i], window)
    return films


def frames_of(seconds: float, grid: Grid) -> int:
    """Pictures of so many seconds. ValueError where that is no length of a clip."""
    arguments.number("seconds", seconds, 0, LONGEST)
    return round(seconds * grid.fps)


def streams_of(rows: Sequence[Row], wanted: AV[bool]) -> tuple[Stream | None, AV[bool]]:
    """The stream that all rows are given, and which ones are to be generated.

    Raises:
        ValueError: there are no rows, they are not given the same, or what they are given leaves nothing to generate.
    """
    if not rows:
        raise ValueError("there is no prompt to generate from")
    given = {row.given for row in rows}
    if len(given) > 1:
        raise ValueError("the rows of a batch must all be given the same stream")
    if len({(row.prefix is None, row.suffix is None) for row in rows}) > 1:
        raise ValueError("the rows of a batch must all go on from a clip, all lead to one, or none")
    (shared,) = given
    generated = AV(wanted.video and shared != "video", wanted.audio and shared != "audio")
    if not any(generated):
        raise ValueError("nothing is left to generate: ask for a stream that is not given")
    for key, made, what in (("image", 0, "pictures"), ("last_image", 0, "pictures"), ("voice", 1, "sound")):
        if not generated[made] and any(getattr(row, key) is not None for row in rows):
            raise ValueError(f"{NAMES[key]} is given, but no {what} {'are' if made == 0 else 'is'} to be generated")
    return shared, generated


def parts_of(row: Row, generated: AV[bool], *, shown: bool = False) -> AV[Part | None]:
    """What of the generated streams a row gives as latent frames, as training calls it.

    Args:
        row: that is to be generated.
        generated: which streams are.
        shown: whether the network is shown the first picture, which is no latent frame of the clip's then.
    """
    both: Part | None = "prefix" if row.prefix is not None else "suffix" if row.suffix is not None else None
    ends: dict[tuple[bool, bool], Part] = {
        (True, False): "first_frame",
        (False, True): "last_frame",
        (True, True): "first_last",
    }
    pictures = ends.get((row.image is not None and not shown, row.last_image is not None))
    voice: Part | None = None if row.voice is None else "voice"
    return AV(both or pictures if generated.video else None, both or voice if generated.audio else None)
