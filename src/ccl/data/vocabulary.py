"""The words that a training saw in its prompts, as far as its data are known to have no others."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

from ccl.data.world.script import BALL, COUNT, MOTION, WALL, Event, Person, looks, sentences
from ccl.data.world.voice import Pitch
from ccl.text.embedded import words_of

WORLD = ("ccl.data.WorldData", "ccl.data.datamodule.WorldData")


def learned(run: dict[str, Any]) -> list[str] | None:
    """Words of the prompts of a run, sorted; None where they are not known.

    Shards hold any captions, and a model that began from another's weights has learned from that one's prompts.

    Args:
        run: its config, as YAML holds it.
    """
    data, model = (run[key] if isinstance(run.get(key), dict) else {} for key in ("data", "model"))
    began = model.get("init_args") if isinstance(model.get("init_args"), dict) else model
    return world_words() if data.get("class_path") in WORLD and not began.get("pretrained") else None


def world_words() -> list[str]:
    """All words of the talking world's training prompts, sorted: of every look, motion, voice, sentence and event."""
    prompts = [
        Person(*look, motion=motion).prompt(pitch, "")
        for look, motion, pitch in product(looks("train"), ("", *MOTION), get_args(Pitch))
    ]
    prompts += [Event("ball", colour, wall).prompt for colour, wall in product(BALL, WALL)]
    for colour, wall, count in product(("white", "orange"), WALL, COUNT):
        prompts += [Event("drum", colour, wall, count).prompt, Event("bell", colour, wall, count).prompt]
    every = {word for prompt in (*prompts, *sentences("train")) for word in prompt.split()}
    return sorted({word for text in every for word in words_of(text)})
