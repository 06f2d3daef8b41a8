"""Who describes clips for `ccl shards caption`: a callable of the user's or a model of transformers; and Whisper.

Whisper is asked first: what it hears is `clip.meta["speech"]` to whoever describes the clip, and stands in the caption
in double quotes, as the words that are spoken do in prompts.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ccl.cli import listen
from ccl.cli.errors import UsageError
from ccl.cli.own import cause
from ccl.data.captioning import Captioner
from ccl.data.filters import Silent
from ccl.evaluation.speech import saying
from ccl.evaluation.vad import VAD
from ccl.files import machine_trouble
from ccl.media import Clip

TASK = "image-text-to-text"  # transformers 5 has no other pipeline that describes pictures
QUESTION = (
    "These are pictures of one short clip, in order. Describe it in one or two sentences: who and what is seen, what "
    "they do, and where. Begin with what is seen."
)
TOKENS = 256  # that it may say
PICTURES = 4  # of a clip, shown to a model that takes several


def together(begin: Callable[[], Captioner], hear: Callable[[Clip], str] | None) -> Captioner:
    """What `begin` makes, with what is heard."""
    return begin() if hear is None else Spoken(begin(), hear)


def hearing(model: str, language: str, device: str) -> Callable[[Clip], str]:
    """What Whisper hears, for `--transcribe`. UsageError where it cannot run."""
    return listen.Whisper(model, language, device).words


def own(name: str) -> Captioner:
    """A callable of the user's; of a class, one object. Its module can be imported, as `own.check` has seen.

    Raises:
        UsageError: it cannot be called, or its object cannot be made.
    """
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            if machine_trouble(error):
                raise
            raise UsageError(f"--captioner: {name} cannot be made: {cause(error)}") from error
    if not callable(found):
        raise UsageError(f"--captioner: {name} cannot be called; it must take a clip and return its caption")

    def described(clip: Clip) -> str:
        said = told(found, clip)
        if not isinstance(said, str):
            raise ValueError(f"{name} returned {type(said).__name__}; it must return text")
        return said

    return described


def told(describe: Callable[[Clip], Any], clip: Clip) -> Any:
    """What others' code says of a clip. ValueError with the place in it where it fails; the machine's own passes."""
    try:
        return describe(clip)
    except Exception as error:
        if machine_trouble(error):
            raise
        raise ValueError(cause(error)) from error


class Hugging:
    """A model that transformers' pipeline runs, shown pictures of the clip.

    Args:
        model: its folder, or its name on the Hugging Face Hub.
        device: where it runs.
        pictures: how many it is shown, evenly over the clip; None is PICTURES where it takes a chat, else one.
        question: that it is asked; None is QUESTION. Where it takes no chat, it is the beginning of its caption, and
            None is none.

    Raises:
        UsageError: there is no such model, it does not describe pictures, or it takes one and is to be shown several.
    """

    def __init__(
        self, model: str, device: str = "cpu", pictures: int | None = None, question: str | None = None
    ) -> None:
        from transformers import pipeline
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            self.pipe: Any = pipeline(TASK, model=model, device=device)
        except Exception as error:  # its own, of many kinds
            if machine_trouble(error):
                raise
            said = " ".join(str(error).split())[:200]
            raise UsageError(f"--captioner: transformers cannot run {model} as {TASK}: {said}") from error
        self.chats = getattr(self.pipe.processor, "chat_template", None) is not None
        if not self.chats and (pictures or 1) > 1:
            raise UsageError(f"--pictures is {pictures}; {model} takes no chat, and so one picture")
        self.pictures = pictures or (PICTURES if self.chats else 1)
        self.question = question or (QUESTION if self.chats else "")

    def __call__(self, clip: Clip) -> str:
        """ "" of a clip without pictures."""
        return "" if clip.video is None else told(self._described, clip)

    def _described(self, clip: Clip) -> str:
        shown = shown_of(clip, self.pictures)
        if self.chats:
            content = [{"type": "image", "image": picture} for picture in shown]
            content.append({"type": "text", "text": self.question})
            chat = [{"role": "user", "content": content}]
            (said,) = self.pipe(text=chat, max_new_tokens=TOKENS, return_full_text=False)
        else:
            (said,) = self.pipe(images=shown[0], text=self.question, max_new_tokens=TOKENS)
        return said["generated_text"]


def shown_of(clip: Clip, count: int) -> list[Any]:
    """Pictures in the middle of equal parts of a clip, as transformers takes them."""
    from PIL import Image

    assert clip.video is not None
    places = (np.arange(count) + 0.5) / count * len(clip.video)
    return [Image.fromarray(clip.video[int(place)]) for place in places]


class Spoken:
    """Captions with what is said in them, in quotes.

    Args:
        describe: says what is seen.
        hear: says what is said, without double quotes.
    """

    def __init__(self, describe: Captioner, hear: Callable[[Clip], str]) -> None:
        self.describe, self.hear, vad = describe, hear, VAD()
        lacking = vad.missing().partition(listen.OTHERS)[0]
        self.vad = None if lacking else vad
        if lacking:
            sys.stderr.write(
                f"note: Whisper alone says whether anybody speaks, and may hear words in noise: {lacking}\n"
            )

    def __call__(self, clip: Clip) -> str:
        words = self.heard(clip)
        return saying(words, self.describe(replace(clip, meta={**clip.meta, "speech": words})))

    def heard(self, clip: Clip) -> str:
        """What is said; "" of a clip that has no sound, is silent, or in which nobody speaks."""
        if clip.audio is None or Silent()(clip):
            return ""
        if self.vad is not None and not self.vad.share(listen.sound_of(clip)):
            return ""
        return self.hear(clip)
