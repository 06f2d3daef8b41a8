"""The embedded talking world: any number of clips, each a pure function of (seed, split, index, grid).

Half of the training clips are portraits (easy), 35 % figures that move (hard), 15 % sound events with a visible cause.
The test split has 200: 0 to 99 easy, 100 to 199 hard, where i and i + 100 say the same sentence with the same sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from ccl.data.world import scene, sounds
from ccl.data.world.lips import lips
from ccl.data.world.script import SPLITS, Person, Split, draw_event, draw_person, draw_sentence
from ccl.data.world.voice import PITCHES, RATES, VOICES, Gender, Pitch, Speech, Voice, say
from ccl.grid import Grid
from ccl.media import Clip
from ccl.rng import seed_of

Subset = Literal["easy", "hard", "event"]
TEST_PAIRS = 100
MARGIN = 0.08  # seconds of quiet at either end, at least
_TRIES = 64


@dataclass(frozen=True)
class Line:
    """What is said in a clip, by whom, and from when (seconds)."""

    sentence: str
    gender: Gender
    pitch: Pitch
    voice: Voice
    speech: Speech
    onset: float


@dataclass(frozen=True)
class WorldSource:
    """One clip of a world, to be made when it is loaded; pickles small."""

    world: World
    index: int

    @property
    def id(self) -> str:
        return self.world.id(self.index)

    def load(self) -> Clip:
        return self.world.clip(self.index)


@dataclass(frozen=True)
class World:
    """The clips of a split.

    Args:
        seed: another seed, other clips.
        split: training and test clips share neither sentences nor looks nor randomness.
        grid: size, length and rates of the clips.

    Raises:
        ValueError: an unknown split; from `clip`, an index out of range or a clip too short for any sentence.
    """

    seed: int = 0
    split: Split = "train"
    grid: Grid = field(default_factory=Grid)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"the world has no split {self.split!r}; it has train and test")

    def __len__(self) -> int:
        if self.split == "train":
            raise TypeError("the world's training split has no end; ask sources() for as many clips as are wanted")
        return 2 * TEST_PAIRS

    def id(self, index: int) -> str:
        """The name of a clip; unique over seeds and splits."""
        return f"world{self.seed}-{self.split}-{index:06d}"

    def sources(self, count: int, start: int = 0) -> Iterator[WorldSource]:
        """Clips `start` to `start + count - 1`, not made yet."""
        return (WorldSource(self, index) for index in range(start, start + count))

    def subset(self, index: int) -> Subset:
        """easy, hard or event."""
        if index < 0 or (self.split == "test" and index >= 2 * TEST_PAIRS):
            raise ValueError(f"the world's {self.split} split has no clip {index}")
        if self.split == "test":
            return "easy" if index < TEST_PAIRS else "hard"
        u = self._rng("subset", index).random()
        return "easy" if u < 0.5 else "hard" if u < 0.85 else "event"

    def clip(self, index: int) -> Clip:
        """Make a clip: video (T, H, W, 3) uint8, audio (S,) float32 and its prompt."""
        subset = self.subset(index)
        rng = self._rng("scene", index)
        if subset == "event":
            return self._event(index, rng)
        line, person = self.line(index), self.person(index)
        mouth = lips(line.speech, line.onset, self.grid.frames, self.grid.fps)
        draw = scene.figure if subset == "hard" else scene.portrait
        audio = np.zeros(self.grid.samples, np.float32)
        first = round(line.onset * self.grid.sample_rate)
        audio[first : first + len(line.speech.audio)] = line.speech.audio
        meta = {
            "kind": "speech",
            "subset": subset,
            "sentence": line.sentence,
            "gender": person.gender,
            "pitch": line.pitch,
            "voice": line.voice.name,
            "hair": person.hair,
            "shirt": person.shirt,
            "wall": person.wall,
            "motion": person.motion,
            "onset": line.onset,
            "phonemes": [[p.name, line.onset + p.start, line.onset + p.end] for p in line.speech.phonemes],
        }
        return self._clip(
            index, draw(person, mouth, self.grid, rng), audio, person.prompt(line.pitch, line.sentence), meta
        )

    def person(self, index: int) -> Person:
        """Who speaks in a clip of speech, and where."""
        gender, moving = self.line(index).gender, self.subset(index) == "hard"
        return draw_person(self._rng("person", index), self.split, gender, moving)

    def prompt(self, index: int) -> str:
        """The prompt of a clip of speech, without making the clip."""
        line = self.line(index)
        return self.person(index).prompt(line.pitch, line.sentence)

    def line(self, index: int) -> Line:
        """What is said in a clip of speech."""
        number = index % TEST_PAIRS if self.split == "test" else index
        return _line(self.seed, self.split, number, self.grid.seconds, self.grid.sample_rate)

    def _event(self, index: int, rng: np.random.Generator) -> Clip:
        event = draw_event(rng)
        times: np.ndarray
        if event.kind == "ball":
            times = np.array([0.0, 0.45, 0.7]) + rng.uniform(0.2, 0.6) * self.grid.seconds
        else:
            gap = rng.uniform(0.45, 0.6) if event.kind == "drum" else rng.uniform(0.5, 0.65)
            room = max(self.grid.seconds - 0.4 - gap * (event.count - 1), 0.1)
            times = gap * np.arange(event.count) + 0.2 + rng.uniform(0, room)
        audio = sounds.ring(event, times, self.grid.samples, self.grid.sample_rate, rng)
        video = scene.happening(event, times, self.grid, rng)
        meta = {
            "kind": event.kind,
            "subset": "event",
            "sentence": "",
            "colour": event.colour,
            "wall": event.wall,
            "times": times.tolist(),
        }
        return self._clip(index, video, audio, event.prompt, meta)

    def _clip(self, index: int, video: np.ndarray, audio: np.ndarray, prompt: str, meta: dict) -> Clip:
        return Clip(video, audio, self.grid.fps, self.grid.sample_rate, prompt, self.id(index), meta)

    def _rng(self, *parts: object) -> np.random.Generator:
        return np.random.default_rng(seed_of("world", self.seed, self.split, *parts))


@lru_cache(maxsize=128)
def _line(seed: int, split: Split, number: int, seconds: float, sample_rate: int) -> Line:
    """Draw a sentence and a voice that fit in the clip whole, and an onset in the room left."""
    rng = np.random.default_rng(seed_of("world", seed, split, "line", number))
    genders: tuple[Gender, Gender] = ("man", "woman")
    pitches: tuple[Pitch, Pitch] = ("low", "high")
    for _ in range(_TRIES):
        sentence = draw_sentence(rng, split)
        gender, pitch = genders[rng.integers(2)], pitches[rng.integers(2)]
        name = VOICES[gender][rng.integers(len(VOICES[gender]))]
        voice = Voice(name, int(rng.integers(*PITCHES[pitch], endpoint=True)), int(rng.integers(*RATES, endpoint=True)))
        speech = say(sentence, voice, sample_rate)
        room = seconds - 2 * MARGIN - speech.seconds
        if room > 0:
            return Line(sentence, gender, pitch, voice, speech, MARGIN + float(rng.uniform(0, room)))
    raise ValueError(
        f"no sentence of the world fits in a clip of {seconds:.2f} s; raise grid.frames, or give data other clips than "
        "the world's"
    )
