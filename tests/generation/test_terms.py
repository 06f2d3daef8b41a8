"""A clip is sampled on a term that was trained: found by what is given and wanted, or by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ccl import cli
from ccl.generation import Pipeline
from ccl.generation.terms import NOTHING, Asked, trained
from ccl.guidance import UCG2, SyncCFG
from ccl.rows import Row
from ccl.storage.model_folder import export, load_model, save_model
from ccl.tasks import PAPER_TASKS, Given, Task, Term
from ccl.types import AV, CLOSED, OPEN, Closed, Route, View
from helpers.tiny import PROMPTS, run_folder, tiny_config, tiny_pipeline, tiny_state

BOTH = AV(True, True)
FIRST = AV("first_frame", None)
ON = AV("prefix", "prefix")
A2V = Term(Route(a2v=True, v2a=False), {"audio": Given("all", time=0.2)})
SOUND = np.sin(np.arange(6000) / 20).astype(np.float32)[:5760]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Asked(None, BOTH), "joint"),
        (Asked(None, BOTH, (FIRST, NOTHING)), "joint"),
        (Asked(None, AV(True, False)), "single"),
        (Asked(None, AV(False, True)), "single"),
        (Asked("audio", AV(True, False), (FIRST,)), "a2v"),
        (Asked("video", AV(False, True)), "v2a"),
    ],
    ids=str,
)
def test_what_the_paper_trains_is_found_by_what_is_given_and_wanted(asked: Asked, name: str) -> None:
    assert trained(None, "nothing").find(asked) is PAPER_TASKS[name].terms[0]
    assert trained(PAPER_TASKS, "context").find(asked, name) is PAPER_TASKS[name].terms[0]


@pytest.mark.parametrize(
    ("terms", "asked", "closed", "sentence"),
    [
        ({"joint": Term(OPEN)}, Asked(None, AV(False, True)), "nothing",
         "this model was not trained for sound; it knows: joint (pictures and sound)"),
        ({"joint": Term(OPEN)}, Asked("audio", AV(True, False)), "context", "not trained for pictures for given so"),
        ({"joint": Term(OPEN)}, Asked(None, BOTH, (FIRST,)), "context", "pictures and sound from a first picture; "),
        ({"a2v": A2V}, Asked(None, BOTH), "nothing", "it knows: a2v (pictures for given sound)"),
        ({"i2v": Term(OPEN, {"video": Given("first_frame")})}, Asked(None, BOTH, (FIRST, NOTHING)), "nothing",
         "from a first picture in some of the clips; it knows: i2v (pictures and sound, a first picture)"),
        ({"on": Term(OPEN, {"audio": Given("prefix", seconds=(1.0, 2.0))})}, Asked(None, BOTH), "nothing",
         "it knows: on (pictures and sound, a beginning)"),
    ],
)  # fmt: skip
def test_what_was_not_trained_is_refused_and_what_was_is_told(
    terms: dict[str, Term], asked: Asked, closed: Closed, sentence: str
) -> None:
    with pytest.raises(ValueError) as error:
        trained({name: Task(1.0, (term,)) for name, term in terms.items()}, closed).find(asked)
    assert sentence in str(error.value)


CONTINUE = {name: Given("prefix", prob=0.5, seconds=(0.5, 1.5)) for name in ("video", "audio")}


def test_a_beginning_or_a_last_picture_is_found_where_it_was_trained() -> None:
    terms = {"on": Term(OPEN, CONTINUE), "ends": Term(OPEN, {"video": Given("first_last")})}
    known = trained({name: Task(1.0, (term,)) for name, term in terms.items()}, "nothing")
    assert known.find(Asked(None, BOTH, (ON,))) is known.find(Asked(None, BOTH, (ON, NOTHING))) is terms["on"]
    assert known.find(Asked(None, BOTH, (AV("first_last", None),))) is terms["ends"]
    with pytest.raises(ValueError, match=r"for pictures and sound from an end; it knows: on .*, with or without a"):
        known.find(Asked(None, BOTH, (AV("suffix", "suffix"),)))


def test_who_knows_a_first_picture_holds_a_beginning_likewise_and_says_that_it_was_not_trained() -> None:
    known, joint = trained(None, "context"), PAPER_TASKS["joint"].terms[0]
    for parts, word in ((ON, "a beginning"), (AV("last_frame", None), "a last picture")):
        term, told = known.near(Asked(None, BOTH, (parts,)))
        assert term is joint and told == f"this model was not trained on {word}, which is held as a first picture is"
    assert known.near(Asked(None, BOTH, (FIRST,)))[1] == ""
    with pytest.raises(ValueError, match="this model was not trained for sound from a beginning; it knows"):
        known.near(Asked(None, AV(False, True), (AV(None, "prefix"),)))
    without = trained({"joint": Task(1.0, (Term(OPEN),))}, "context")
    with pytest.raises(ValueError, match=r"not trained for pictures and sound from a beginning; it knows: joint \(pic"):
        without.near(Asked(None, BOTH, (ON,)))


def test_where_a_closed_route_leaves_the_same_routes_have_no_say() -> None:
    tasks = {"joint": Task(1.0, (Term(OPEN),))}
    assert trained(tasks, "same").find(Asked(None, AV(False, True))) is tasks["joint"].terms[0]


def test_a_null_is_as_noisy_as_what_was_given_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipeline()
    pipe.tasks = {**PAPER_TASKS, "a2v": Task(1.0, (A2V,))}
    assert pipe.trained.given_times == AV(0.0, 0.2)
    seen, forward = [], pipe.net.forward
    monkeypatch.setattr(pipe.net, "forward", lambda x, t, *a, **k: seen.append((x, t)) or forward(x, t, *a, **k))
    pipe("a", guidance=SyncCFG(), steps=1)
    ((x, t),) = seen
    assert t.audio.tolist() == pytest.approx([1, 0.2, 1]) and t.video.tolist() == [1, 1, 0]
    silence = pipe.codec.audio.encode(torch.zeros(1, pipe.grid.samples), pipe.grid.t_a)[0]
    torch.testing.assert_close(x.audio[1], 0.8 * silence + 0.2 * x.audio[0])


def test_a_pass_beside_a_null_that_no_term_was_given_is_told() -> None:
    driven = [one for rule in (UCG2(), SyncCFG()) for one in rule.passes(OPEN, 0.5)]
    assert trained(None, "context").unseen("synccfg", driven) == ""
    joint = {"joint": Task(1.0, (Term(OPEN),))}
    said = "this model was not trained on given sound, which a pass of synccfg gives it"
    assert trained(joint, "nothing").unseen("synccfg", driven) == said
    assert (
        trained({**joint, "a2v": Task(1.0, (A2V,))}, "own")
        .unseen("x", driven)
        .startswith("this model was not trained on given pictures,")
    )
    assert trained(joint, "nothing").unseen("ucg2", driven[:2]) == "" == trained(joint, "same").unseen("x", driven)


def test_a_task_that_is_never_drawn_was_not_trained() -> None:
    tasks = {"joint": Task(1.0, (Term(OPEN),)), "a2v": Task(0.0, (A2V,))}
    with pytest.raises(ValueError, match=r"it knows: joint \(pictures and sound\)$"):
        trained(tasks, "nothing").find(Asked("audio", AV(True, False)))


def test_a_name_takes_another_term_than_the_first_that_suits() -> None:
    known = trained(None, "nothing")
    assert known.find(Asked(None, BOTH), "single").route == CLOSED
    with pytest.raises(ValueError, match=r"this model knows no task 'jiont'; it knows: single \(pictures and"):
        known.find(Asked(None, BOTH), "jiont")
    with pytest.raises(ValueError, match=r"the task a2v is for pictures for given sound, .*; asked for: pic"):
        known.find(Asked(None, BOTH), "a2v")


def views(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
    seen: list[Any] = []
    times: list[Any] = []
    forward = pipe.net.forward

    def spy(x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["view"])
        times.append((x, t))
        return forward(x, t, *args, **kwargs)

    monkeypatch.setattr(pipe.net, "forward", spy)
    return seen, times


def test_a_clip_is_sampled_on_the_term_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipeline()
    seen, _ = views(pipe, monkeypatch)
    pipe(PROMPTS[0], steps=1, guidance="none", task="single")
    pipe(PROMPTS[0], steps=1, guidance="none")
    assert seen == [[View(CLOSED)], [View(OPEN)]]


def test_given_sound_is_held_at_the_time_it_was_trained_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """AV-Link's: as noisy as in training, with the row's own noise; the clip's sound is the given one all the same."""
    pipe = tiny_pipeline()
    pipe.tasks = {"a2v": Task(1.0, (A2V,))}
    _, times = views(pipe, monkeypatch)
    (clip,) = pipe.generate([Row("a", PROMPTS[0], audio=SOUND, seed=3)], steps=2, guidance="none")
    assert np.array_equal(clip.audio[: len(SOUND)], SOUND[: len(clip.audio)])
    pipe.tasks = {"a2v": Task(1.0, (Term(A2V.route, {"audio": Given("all")}),))}
    pipe.generate([Row("a", PROMPTS[0], audio=SOUND, seed=3)], steps=2, guidance="none")
    (noisy, at), (clean, zero) = times[0], times[2]
    assert (at.audio == 0.2).all() and not zero.audio.any()
    noise = (noisy.audio - 0.8 * clean.audio) / 0.2
    assert noise.std() == pytest.approx(1, abs=0.1) and torch.equal(times[0][0].audio, times[1][0].audio)


def test_what_was_given_at_a_range_of_times_is_held_at_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipeline()
    pipe.tasks = {"a2v": Task(1.0, (Term(A2V.route, {"audio": Given("all", time=(0.0, 1.0))}),))}
    _, times = views(pipe, monkeypatch)
    pipe.generate([Row("a", PROMPTS[0], audio=SOUND, seed=3)], steps=2, guidance="none")
    assert len(times) == 2 and not any(at.audio.any() for _, at in times)


def test_the_tasks_of_a_run_travel_in_the_model_folder(tmp_path: Path) -> None:
    checkpoint = run_folder(tmp_path, tiny_state())
    file = checkpoint.parents[1] / "config.yaml"
    config = yaml.safe_load(file.read_text())
    tasks = yaml.safe_load("{joint: {prob: 1.0, terms: [{route: {a2v: true, v2a: true}, given: {}}]}}")
    config["model"]["tasks"] = tasks
    file.write_text(yaml.safe_dump(config))
    export(checkpoint, tmp_path / "model")
    assert yaml.safe_load((tmp_path / "model/config.yaml").read_text())["tasks"] == tasks
    assert load_model(tmp_path / "model").tasks == {"joint": Task(1.0, (Term(OPEN),))}
    asked = ["generate", "--ckpt", str(tmp_path / "model"), "--prompt", PROMPTS[0], "-o", str(tmp_path / "a.wav")]
    assert cli.main([*asked, "--only", "audio"]) == 1
    assert not (tmp_path / "a.wav").exists()


def test_a_model_that_says_no_tasks_knows_the_papers(tmp_path: Path) -> None:
    save_model(tmp_path / "old", tiny_config(), tiny_state())
    assert load_model(tmp_path / "old").tasks is None
    assert Pipeline.load(tmp_path / "old", device="cpu").trained.terms.keys() == PAPER_TASKS.keys()


def test_tasks_of_a_folder_that_are_none_are_told_with_their_file(tmp_path: Path) -> None:
    config = {
        **tiny_config(),
        "tasks": {"joint": {"prob": 1.0, "terms": [{"route": {}, "given": {"video": {"prt": 1}}}]}},
    }
    save_model(tmp_path / "bad", config, tiny_state())
    with pytest.raises(ValueError, match=r"bad/config.yaml .*tasks.joint.terms.0.given.video has 'prt'"):
        load_model(tmp_path / "bad")


# Configs of older versions

OLD_TASKS = "tasks: {a2v: {prob: 1.0, route: {a2v: true, v2a: false}, reference: audio, shared_time: false}}"


@pytest.mark.parametrize(
    ("overlay", "sentences"),
    [
        (
            "model: {image_prob: 0.5}",
            ["the key model.image_prob is of an older version", "part: first_frame", "line 1"],
        ),
        ("model:\n  " + OLD_TASKS, ["the key model.tasks.a2v.route is of an older version", "`terms`", "line 2"]),
        (
            "model: {tasks: {a: {prob: 1, reference: audio}}}",
            ["model.tasks.a.reference", "`given: {audio: {part: all}}`"],
        ),
        (
            "model: {net: {class_path: ccl.model.ImageDualStream}}",
            ["class_path names ccl.model.ImageDualStream, now a DualStreamTransformer whose `video` is a"],
        ),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "plan"])
def test_an_old_key_is_told_with_what_has_taken_its_place(
    verb: str, overlay: str, sentences: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "o.yaml"
    file.write_text(overlay)
    joint = str(Path(__file__).parents[2] / "configs/joint.yaml")
    assert cli.main([verb, "--config", joint, "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert all(sentence in said for sentence in [*sentences, str(file)]) and said.count("\n") == 1, said


def test_an_old_key_on_the_command_line_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    joint = str(Path(__file__).parents[2] / "configs/joint.yaml")
    assert cli.main(["fit", "--config", joint, "--model.image_prob", "0.5"]) == 2
    assert "the key model.image_prob is of an older version; a term of model.tasks" in capsys.readouterr().err


def test_an_older_run_is_sampled_from_and_exported_as_one_of_the_papers_tasks(tmp_path: Path) -> None:
    checkpoint = run_folder(tmp_path, tiny_state())
    file = checkpoint.parents[1] / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["model"] |= {"image_prob": 0.5, **yaml.safe_load(OLD_TASKS)}
    file.write_text(yaml.safe_dump(config))
    export(checkpoint, tmp_path / "model")
    assert load_model(tmp_path / "model").tasks is None


def test_an_older_run_of_a_class_that_is_gone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run_folder(tmp_path, tiny_state())
    file = checkpoint.parents[1] / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["model"]["net"]["class_path"] = "ccl.model.OviDualStream"
    file.write_text(yaml.safe_dump(config))
    run = str(checkpoint.parents[1])
    for verb in (["generate", "--ckpt", run, "--prompt", "a"], ["export", run]):
        assert cli.main([*verb, "-o", str(tmp_path / "out.mp4")]) == 1
        said = capsys.readouterr().err
        assert f"{file}: net.class_path names ccl.model.OviDualStream, now a DualStreamTransformer whose" in said
