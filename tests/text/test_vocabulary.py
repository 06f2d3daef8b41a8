"""Words that a small checkpoint has learned: listed in its config, and told where a prompt has others."""

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from torch import nn

import ccl
from ccl import cli
from ccl.callbacks import Words
from ccl.data.world.script import (
    BALL,
    COUNT,
    MOTION,
    SPLITS,
    WALL,
    Event,
    Person,
    draw_event,
    draw_person,
    draw_sentence,
    looks,
    sentences,
)
from ccl.data.world.voice import Pitch
from ccl.files import FileError
from ccl.files.yamltext import read_yaml
from ccl.generation import Pipeline
from ccl.storage.model_folder import CONFIG, SHIPPED, WEIGHTS, export, save_model
from ccl.storage.source import find_source
from ccl.text import EmbeddedText, vocabulary
from ccl.text.embedded import words_of
from ccl.text.vocabulary import FILE, MOST, gather, read_words
from helpers.tiny import run_folder, tiny_config, tiny_pipeline, tiny_state


def world_words() -> list[str]:
    """All words of the talking world's training prompts: of every look, motion, voice, sentence and event."""
    prompts = [
        Person(*look, motion=motion).prompt(pitch, "")
        for look, motion, pitch in product(looks("train"), ("", *MOTION), get_args(Pitch))
    ]
    prompts += [Event("ball", colour, wall).prompt for colour, wall in product(BALL, WALL)]
    for colour, wall, count in product(("white", "orange"), WALL, COUNT):
        prompts += [Event("drum", colour, wall, count).prompt, Event("bell", colour, wall, count).prompt]
    return sorted({word for text in {*prompts, *sentences("train")} for word in words_of(text)})


@pytest.fixture
def pipe() -> Pipeline:
    pipe = tiny_pipeline()
    pipe.provenance = read_yaml(SHIPPED / CONFIG)["provenance"]
    return pipe


def told(pipe: Pipeline, prompt: str) -> list[str]:
    return pipe(prompt, steps=1).meta.get("notes", [])


def test_the_checkpoint_that_ships_lists_the_words_of_the_worlds_prompts():
    provenance = read_yaml(SHIPPED / CONFIG)["provenance"]  # within the bounds of any config
    assert provenance["words"] == world_words() == sorted(set(provenance["words"]))
    find_source(SHIPPED).read()  # and its weights are still those that the config was written for


def test_no_prompt_of_the_world_has_a_word_that_is_not_listed():
    rng, known = np.random.default_rng(0), set(read_yaml(SHIPPED / CONFIG)["provenance"]["words"])
    prompts = [draw_event(rng).prompt for _ in range(200)]
    for split, gender, moving, pitch, _ in product(SPLITS, ("man", "woman"), (False, True), ("low", "high"), range(40)):
        prompts.append(draw_person(rng, split, gender, moving).prompt(pitch, draw_sentence(rng, split)))
    seen = {word for prompt in prompts for word in words_of(prompt)}
    assert seen == known, "and each listed word is in one of them"


@pytest.mark.parametrize(
    ("prompt", "note"),
    [
        ('A man says "please open the door!"', None),
        ("A MAN says “I can see the river”, twice.", None),
        ("a giraffe sings", "this model has not learned the words 'giraffe', 'sings'"),
        ('A woman says in a low voice "Hello, hello"', "this model has not learned the word 'hello'"),
        (
            "b c d e f g h j k l",
            "this model has not learned the words 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'j' and 2 more",
        ),
    ],
)
def test_words_that_a_model_has_not_learned_are_told(pipe, prompt, note):
    assert told(pipe, prompt) == ([note] if note else [])


def test_a_model_without_a_list_tells_nothing(pipe):
    del pipe.provenance["words"]
    assert told(pipe, "a giraffe sings") == []


def test_words_of_the_negative_prompt_are_told_too(pipe):
    told = pipe("a man sings", negative="blurry, sings", steps=1).meta["notes"]
    assert told == ["this model has not learned the words 'sings', 'blurry'"]


def begin(folder: Path, prompts: list[str] | None, text: Any = None, **more: Any) -> list[str] | None:
    """What a run's folder says of its words as a training begins."""
    data = SimpleNamespace() if prompts is None else SimpleNamespace(prompts=lambda: iter(prompts))
    start = more.pop("start", None)
    trainer = SimpleNamespace(is_global_zero=True, ckpt_path=start and str(start), datamodule=data)
    text = EmbeddedText(dim=16, length=8, heads=2, buckets=8) if text is None else text
    Words(folder).on_fit_start(trainer, SimpleNamespace(text=text, **({"pretrained": None} | more)))
    return read_words(folder)


def test_a_training_keeps_the_words_of_its_captions(tmp_path):
    prompts = ['A Dog says "Don\u2019t!"', "", "a dog,  the CAFÉ; 犬"]
    assert begin(tmp_path, prompts) == ["a", "café", "dog", "don't", "says", "the", "犬"]
    assert begin(tmp_path, ["a"]) == ["a"], "begun anew"
    assert begin(tmp_path, ["b"], start=tmp_path / "checkpoints" / "last.ckpt") == ["a"], "and gone on with"
    assert begin(tmp_path, ["a"], nn.Linear(1, 1)) == ["a"] and not (tmp_path / "other").exists()
    assert begin(tmp_path / "other", ["a"], nn.Linear(1, 1)) is None, "a text encoder that knows the language"
    assert begin(tmp_path, None) is None, "captions that nobody can say"


def test_too_many_words_are_no_list(monkeypatch):
    monkeypatch.setattr(vocabulary, "MOST", 9)
    assert gather(["a b c d e f g h i"]) == [*"abcdefghi"] and gather(["a b c d e f g h i j"]) is None
    assert gather(["a b c d e f g h i"], ["j"]) is None and gather(["a b c d e f g h i"], ["a"]) is not None
    long = "犬" * 3000  # as a config spells it, of six letters each
    assert gather([long, f"{long}犬"]) is not None
    assert gather(["犬" * 20_000]) is None, "which no config could hold"


def model(folder: Path, **provenance: Any) -> Path:
    save_model(folder, {**tiny_config(), "provenance": provenance}, tiny_state())
    return folder


def test_a_model_that_began_from_anothers_weights_knows_its_words_too(tmp_path):
    one, two, unsaid = (
        model(tmp_path / name, **words)
        for name, words in (("one", {"words": ["bell"]}), ("two", {"words": ["drum"]}), ("unsaid", {}))
    )
    run = tmp_path / "run"
    assert begin(run, ["a ball"], pretrained=str(one)) == ["a", "ball", "bell"]
    assert begin(run, ["a"], pretrained={"video": str(one), "audio": str(two)}) == ["a", "bell", "drum"]
    assert begin(run, ["a"], pretrained={"video": "wan2.1-t2v-14b", "audio": str(two)}) == ["a", "drum"]
    assert begin(run, ["a"], pretrained=str(unsaid)) is None, "and what it knows nobody can say"
    last = run_folder(tmp_path, tiny_state())
    assert begin(run, ["a"], start=last) is None
    (last.parents[1] / FILE).write_text("gong\n")
    assert begin(run, ["a"], start=last) == ["a", "gong"]


def test_a_frozen_text_encoder_knows_no_new_words_and_says_so(tmp_path):
    one = model(tmp_path / "one", words=["a", "bell"])
    frozen = EmbeddedText(dim=16, length=8, heads=2, buckets=8).requires_grad_(False)
    assert begin(tmp_path / "run", ["a bell"], frozen, pretrained={"text": str(one), "video": None}) == ["a", "bell"]
    with pytest.warns(UserWarning, match="has not learned the word 'gong', and its text encoder is frozen: --model"):
        assert begin(tmp_path / "run", ["a gong"], frozen, pretrained=str(one)) == ["a", "bell"]


def test_a_run_is_prompted_with_its_words_known_and_exports_them(tmp_path):
    folder = run_folder(tmp_path, tiny_state()).parents[1]
    (folder / FILE).write_text("a\nman\n")
    note = "this model has not learned the word 'sings'"
    for source in (folder, folder / "checkpoints" / "last.ckpt"):
        assert ccl.load(str(source))("a man sings", steps=1).meta["notes"] == [note]
    export(folder, tmp_path / "model")
    assert read_yaml(tmp_path / "model" / CONFIG)["provenance"]["words"] == ["a", "man"]


@pytest.mark.parametrize("words", ["a\n" * (MOST + 1), "a" * 10**6, b"\xff\xfe\xff", b"caf\xe9\n"])
def test_a_list_beside_a_checkpoint_that_is_none_is_named(tmp_path, words):
    last = run_folder(tmp_path, tiny_state())
    (last.parents[1] / FILE).write_bytes(words if isinstance(words, bytes) else words.encode())
    with pytest.raises(FileError, match=r"words\.txt"):
        find_source(last)


def test_a_list_stays_when_a_model_is_exported_again_and_is_told_on_the_screen(tmp_path, capsys):
    model(tmp_path / "a", words=["a", "man"])
    assert cli.main(["export", str(tmp_path / "a"), "-o", str(tmp_path / "b")]) == 0
    assert read_yaml(tmp_path / "b" / CONFIG)["provenance"]["words"] == ["a", "man"]
    argv = ["generate", "--ckpt", tmp_path / "b", "--prompt", "a man sings", "--steps", 1, "-o", tmp_path / "x.mp4"]
    assert cli.main([str(word) for word in argv]) == 0
    note = "this model has not learned the word 'sings'"
    assert (
        json.loads((tmp_path / "x.json").read_text())["notes"] == [note] and f"note: {note}" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [("a man", "words is 'a man'"), (["a", 3], "words.1 is '3'"), (["a"] * (MOST + 1), "5000 are the most")],
)
def test_a_list_of_somebody_elses_is_held_to_texts_and_a_bound(tmp_path, words, message):
    config = read_yaml(SHIPPED / CONFIG)
    config["provenance"]["words"] = words
    (tmp_path / CONFIG).write_text(yaml.safe_dump(config))
    (tmp_path / WEIGHTS).touch()
    with pytest.raises(FileError, match=message):
        find_source(tmp_path)
