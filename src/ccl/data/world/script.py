"""What is said and shown: sentences, looks, events, and the one prompt that tells both streams.

Sentences come from templates over about sixty words. A stable hash holds about 15 % of the sentences, and of the looks,
for the test split, so neither is ever seen in training, while each of their words and colours is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np

from ccl.data.world.voice import Gender, Pitch
from ccl.rng import seed_of

Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")

# A template is a row of places, each with its choices, separated by |.
TEMPLATES: tuple[tuple[str, ...], ...] = (
    ("we|they|I|you", "can see the", "river|house|garden|window|mountain|train"),
    ("we|they|I|you", "can hear the", "river|train|dog|horse|bird"),
    ("the", "dog|cat|horse|bird", "is", "sleeping|eating|waiting",
     "in the garden|in the kitchen|in the house|by the river|by the window|by the door"),
    ("please", "open|close", "the", "door|window|garden door|kitchen door|kitchen window"),
    ("we|they|I|you", "want to buy some", "bread|milk|apples|water|flowers"),
    ("my", "mother|father|brother|sister", "is", "happy|hungry|tired|here", "today|tonight"),
    ("my", "mother|father|brother|sister", "has a", "big|new", "dog|cat|house|garden|book"),
    ("it is", "cold|warm|dark", "in the", "garden|kitchen|house|river"),
    ("where is my", "mother|father|brother|sister|dog|cat|book|bread"),
    ("there is a", "dog|cat|horse|bird|book", "in the", "garden|house|kitchen"),
    ("we|they|I|you", "will go to the", "river|mountain|garden", "today|tonight"),
    ("this is my", "new|big|small", "house|book|dog|cat"),
)  # fmt: skip

HAIR = ("black", "brown", "blond", "white")
SHIRT = ("green", "blue", "yellow", "white", "black")
WALL = ("blue", "green", "yellow", "grey")
BALL = ("orange", "blue", "green", "white")
MOTION = ("walks to the left", "walks to the right", "sways from side to side", "jumps up and down")
COUNT = {1: "once", 2: "twice", 3: "three times"}
_TEST_SHARE = 0.15


@dataclass(frozen=True)
class Person:
    """Who speaks, and where. `motion` is empty in a portrait."""

    gender: Gender
    hair: str
    shirt: str
    wall: str
    motion: str = ""

    def prompt(self, pitch: Pitch, sentence: str) -> str:
        """The whole prompt, spoken words in double quotes."""
        who = f"A {self.gender} with {self.hair} hair and a {self.shirt} shirt"
        where = f"{self.motion} in a {self.wall} room and" if self.motion else f"in front of a {self.wall} wall"
        return f'{who} {where} says in a {pitch} voice "{sentence}"'


@dataclass(frozen=True)
class Event:
    """A sound with a visible cause."""

    kind: Literal["ball", "drum", "bell"]
    colour: str
    wall: str
    count: int = 1

    @property
    def prompt(self) -> str:
        where = f"in front of a {self.wall} wall"
        if self.kind == "ball":
            return f"A ball of {self.colour} colour {where} falls and lands on the floor with a thud"
        if self.kind == "drum":
            return f"A {self.colour} drum {where} is struck {COUNT[self.count]}"
        return f"A {self.colour} bell {where} swings and rings {COUNT[self.count]}"


def split_of(*parts: str) -> Split:
    """Which split something belongs to, by a stable hash of its text."""
    return "test" if seed_of("world split", *parts) / 2**63 < _TEST_SHARE else "train"


@cache
def sentences(split: Split) -> tuple[str, ...]:
    """All sentences of a split, sorted."""
    every = {" ".join(words) for row in TEMPLATES for words in product(*(place.split("|") for place in row))}
    return tuple(sorted(sentence for sentence in every if split_of("sentence", sentence) == split))


@cache
def looks(split: Split) -> tuple[tuple[Gender, str, str, str], ...]:
    """All (gender, hair, shirt, wall) of a split; a shirt never has its wall's colour, which would hide it."""
    genders: tuple[Gender, Gender] = ("man", "woman")
    every = product(genders, HAIR, SHIRT, WALL)
    return tuple(look for look in every if look[2] != look[3] and split_of("look", *look) == split)


def draw_person(rng: np.random.Generator, split: Split, gender: Gender, moving: bool) -> Person:
    """A person of that gender with a look of that split, who moves or sits for a portrait."""
    choices = [look for look in looks(split) if look[0] == gender]
    look = choices[rng.integers(len(choices))]
    return Person(*look, motion=MOTION[rng.integers(len(MOTION))] if moving else "")


def draw_event(rng: np.random.Generator) -> Event:
    """An event whose thing does not have its wall's colour."""
    kinds: tuple[Literal["ball", "drum", "bell"], ...] = ("ball", "drum", "bell")
    kind = kinds[rng.integers(3)]
    colours = {"ball": BALL, "drum": ("white", "orange"), "bell": ("orange", "white")}[kind]
    wall = WALL[rng.integers(len(WALL))]
    colours = tuple(colour for colour in colours if colour != wall)
    return Event(kind, colours[rng.integers(len(colours))], wall, 1 if kind == "ball" else int(rng.integers(1, 4)))


@cache
def vocabulary() -> tuple[str, ...]:
    """All spoken words, sorted."""
    return tuple(sorted({word for split in SPLITS for sentence in sentences(split) for word in sentence.split()}))
