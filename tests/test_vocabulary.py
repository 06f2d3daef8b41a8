"""Words that a small checkpoint has learned: listed in its config, and told where a prompt has others."""

import json
from itertools import product

import numpy as np
import pytest
import yaml

from ccl import cli
from ccl.data.vocabulary import learned, world_words
from ccl.data.world.script import SPLITS, draw_event, draw_person, draw_sentence
from ccl.files import FileError
from ccl.model_folder import CONFIG, SHIPPED, WEIGHTS, export
from ccl.pipeline import Pipeline
from ccl.source import WORDS, find_source
from ccl.text.embedded import words_of
from ccl.trust import read_yaml
from tiny import tiny_pipeline

WORLD = {"data": {"class_path": "ccl.data.WorldData"}}


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


def test_only_a_run_whose_prompts_are_the_worlds_has_a_list():
    assert learned(WORLD) == learned(WORLD | {"model": {"pretrained": None}}) == world_words()
    assert learned({"data": {"class_path": "ccl.data.ShardData"}}) is None
    assert learned(WORLD | {"model": {"init_args": {"pretrained": "models/joint"}}}) is None
    assert learned({"net": {}, "provenance": {}}) is None  # a model folder keeps its own


def test_a_list_goes_into_a_folder_stays_when_it_is_exported_again_and_is_told_on_the_screen(tmp_path, capsys):
    export(SHIPPED, tmp_path / "a", words=["a", "man"])
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
    [("a man", "words is 'a man'"), (["a", 3], "words.1 is '3'"), (["a"] * (WORDS + 1), "5000 are the most")],
)
def test_a_list_of_somebody_elses_is_held_to_texts_and_a_bound(tmp_path, words, message):
    config = read_yaml(SHIPPED / CONFIG)
    config["provenance"]["words"] = words
    (tmp_path / CONFIG).write_text(yaml.safe_dump(config))
    (tmp_path / WEIGHTS).touch()
    with pytest.raises(FileError, match=message):
        find_source(tmp_path)
