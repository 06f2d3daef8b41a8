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

# A template is a row of places, each with its choices, separated by |. Words and templates that Whisper does not
# understand from espeak-ng (a leading "the" or "they", "bird", "has a") have no place here.
TEMPLATES: tuple[tuple[str, ...], ...] = (
    ("I|we|you", "can see", "the|a little", "house|garden|mountain|window|flower|river"),
    ("I|we|you", "want to eat some", "apples|bread|fish"),
    ("I|we|you", "like to", "eat bread|eat fish|eat apples|drink milk|drink water"),
    ("please", "open|close", "the", "window|garden door|kitchen door|kitchen window"),
    ("please give me some", "apples|bread|fish|milk|flowers"),
    ("my|your", "mother|father|brother|sister|friend", "is", "happy|hungry|tired|here", "today"),
    ("my|your", "mother|father|brother|sister|friend", "is", "sleeping|working|waiting", "in the",
     "garden|kitchen|house"),
    ("it is", "cold|warm|dark", "in the", "garden|kitchen|house|mountains"),
    ("where is", "my|your", "little sister|little brother|mother|father|friend|house"),
    ("I|we|you", "will", "go home|see my mother|see your friend|call my sister|call your father", "tomorrow"),
    ("please", "call|help", "my|your", "mother|father|brother|sister|friend", "today"),
)  # fmt: skip

HAIR = ("black", "brown", "blond", "white")
SHIRT = ("green", "blue", "yellow", "white", "black")
WALL = ("blue", "green", "yellow", "grey")
BALL = ("orange", "blue", "green", "white")
MOTION = ("walks to the left", "walks to the right", "sways from side to side", "jumps up and down")
COUNT = {1: "once", 2: "twice", 3: "three times"}
_TEST_SHARE = 0.15
_SALT = "world split 166"  # a number with which the test split has sentences of every template


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
        a_thing = f"{'An' if self.colour[0] in 'aeiou' else 'A'} {self.colour} {self.kind}"
        if self.kind == "ball":
            return f"{a_thing} {where} falls and lands on the floor with a thud"
        if self.kind == "drum":
            return f"{a_thing} {where} is struck {COUNT[self.count]}"
        return f"{a_thing} {where} swings and rings {COUNT[self.count]}"


def split_of(*parts: str) -> Split:
    """Which split something belongs to, by a stable hash of its text."""
    return "test" if seed_of(_SALT, *parts) / 2**63 < _TEST_SHARE else "train"


@cache
def templates(split: Split) -> tuple[tuple[str, ...], ...]:
    """The sentences of a split, for each template."""
    every = ([" ".join(words) for words in product(*(place.split("|") for place in row))] for row in TEMPLATES)
    return tuple(tuple(s for s in row if split_of("sentence", s) == split) for row in every)


def sentences(split: Split) -> tuple[str, ...]:
    """All sentences of a split, sorted."""
    return tuple(sorted(sentence for row in templates(split) for sentence in row))


def draw_sentence(rng: np.random.Generator, split: Split) -> str:
    """A sentence; each template comes equally often, so that no word is rare because its template has few sentences."""
    row = templates(split)[rng.integers(len(TEMPLATES))]
    return row[rng.integers(len(row))]


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
