"""What a guidance rule asks of a clip: texts for each stream, clean nulls, passes that the model can take, a record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl import cli
from ccl.generation import Pipeline
from ccl.generation import pipeline as pipeline_module
from ccl.generation.generate import describe, generate_files
from ccl.guidance import UCG2, Guidance, Interval, LTX2Guidance, NoGuidance, OviCFG, SyncCFG
from ccl.guidance.base import table
from ccl.rows import Row, read_rows
from ccl.storage.model_folder import save_model
from ccl.types import ALONE, AV, EMPTY, POSITIVE, Pass, Route, Scale, View
from helpers.tiny import PROMPTS, tiny_config, tiny_pipeline, tiny_state

MINE = """
from ccl.guidance import UCG2

class Mine(UCG2):
    "UCG of twice the strength."

    def passes(self, route, t):
        return UCG2(type(self.scale)(2 * self.scale.video, 2 * self.scale.audio)).passes(route, t)

def other():
    pass
"""


class Empty(Guidance):
    """Leads away from the empty prompt, whatever the negative one is."""

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        return table((Pass(POSITIVE, View(route)), AV(2.0, 2.0)), (Pass(EMPTY, View(route)), AV(-1.0, -1.0)))


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the sampling was given last: `texts` and `nulls`."""
    seen: dict[str, Any] = {}

    def watched(net: Any, rule: Guidance, route: Route, texts: Any, **settings: Any) -> Any:
        seen.update(settings, texts=texts)
        return guided(net, rule, route, texts, **settings)

    guided = pipeline_module.guided
    monkeypatch.setattr(pipeline_module, "guided", watched)
    return seen


def equal(a: Any, b: Any) -> bool:
    return np.array_equal(a.video, b.video) and np.array_equal(a.audio, b.audio)


def test_a_negative_prompt_of_the_sounds_own_goes_to_the_sound_alone(pipe: Pipeline, given: dict[str, Any]) -> None:
    own = pipe("a", negative="blurry", negative_audio="hum")
    texts = given["texts"]["negative"]
    for stream, prompt in texts._asdict().items():
        assert torch.equal(prompt, pipe.states(["blurry" if stream == "video" else "hum"]))
    assert not equal(own, pipe("a", negative="blurry"))
    assert isinstance(given["texts"]["negative"], torch.Tensor)  # once for both streams
    assert equal(pipe("a", negative="blurry", negative_audio="blurry"), pipe("a", negative="blurry"))


def test_only_texts_that_passes_read_are_encoded(pipe: Pipeline, given: dict[str, Any]) -> None:
    pipe("a", negative="noise", guidance=NoGuidance())
    assert set(given["texts"]) == {"positive"}
    pipe("a", negative="noise", guidance=Empty())
    assert set(given["texts"]) == {"positive", "empty"}
    assert torch.equal(given["texts"]["empty"], pipe.states([""]))
    # Of two steps, at 1 and 1/2, the second is guided.
    pipe("a", steps=2, guidance=Interval(UCG2(), high=0.5))
    assert set(given["texts"]) == {"positive", "negative"}
    pipe("a", steps=2, guidance=Interval(UCG2(), high=0.4))
    assert set(given["texts"]) == {"positive"}


def test_a_null_stream_is_silence_or_the_first_picture_held_still_or_grey(
    pipe: Pipeline, given: dict[str, Any]
) -> None:
    grid, codec = pipe.grid, pipe.codec
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    grey = codec.video.encode(torch.zeros(1, 3, grid.frames, 16, 16))
    still = torch.tensor(picture).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    still = codec.video.encode(still.repeat(1, 1, grid.frames, 1, 1))
    rows = [Row("a", "a", seed=1), Row("b", "b", seed=2, image=picture)]
    pipe.generate(rows, guidance=SyncCFG(), steps=1)
    torch.testing.assert_close(given["nulls"].video, torch.cat([grey, still]))
    silence = codec.audio.encode(torch.zeros(1, grid.samples), grid.t_a)
    torch.testing.assert_close(given["nulls"].audio, silence.repeat(2, 1, 1))
    pipe("a", guidance=UCG2(), steps=1)
    assert given["nulls"] == AV(None, None)
    clip = pipe("a", guidance=SyncCFG(), steps=1, wanted=AV(True, False))
    assert given["nulls"].audio is None and clip.audio is None  # no sound takes part, so none is silent either


def test_each_stream_is_null_clean_and_at_time_zero_in_its_pass_alone(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = pipe.net.forward
    monkeypatch.setattr(pipe.net, "forward", lambda x, t, *a, **k: seen.append((x, t)) or forward(x, t, *a, **k))
    pipe("a", guidance=SyncCFG(), steps=1)
    ((x, t),) = seen
    assert t.video.tolist() == [1, 1, 0] and t.audio.tolist() == [1, 0, 1]
    assert torch.equal(x.video[0], x.video[1]) and torch.equal(x.audio[0], x.audio[2])


def test_away_from_a_static_partner_is_away_from_the_task_that_is_given_it(pipe: Pipeline) -> None:
    """At a strength of 0 each stream is what the task makes that is given real silence, or a real still."""
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    static = pipe("a", image=picture, guidance=SyncCFG(Scale(0.0, 0.0)), seed=3, steps=3)
    silence = np.zeros(pipe.grid.samples, np.float32)
    beside_silence = pipe("a", image=picture, audio=silence, guidance="none", seed=3, steps=3)
    assert np.abs(static.video.astype(int) - beside_silence.video).max() <= 1  # a level, where a batch rounds otherwise
    still = np.repeat(picture[None], pipe.grid.frames, 0)
    beside_a_still = pipe("a", video=still, guidance="none", seed=3, steps=3)
    np.testing.assert_allclose(static.audio, beside_a_still.audio, atol=1e-3)
    plain = pipe("a", image=picture, guidance="none", seed=3, steps=3)
    assert np.abs(static.video.astype(int) - plain.video).max() > 1


@pytest.mark.parametrize(
    "rule", [SyncCFG(), OviCFG(layer=1), LTX2Guidance(layer=0), Interval(LTX2Guidance(layer=0), UCG2(), 0.6)]
)
@pytest.mark.parametrize("wanted", [AV(True, True), AV(False, True)])
def test_rules_of_every_kind_make_clips(pipe: Pipeline, rule: Guidance, wanted: AV[bool]) -> None:
    clip = pipe("a", guidance=rule, steps=3, wanted=wanted)
    assert np.isfinite(clip.audio).all() and (clip.video is not None) == wanted.video


def test_what_a_model_cannot_take_is_refused_before_it_runs(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe.net, "forward", None)
    with pytest.raises(ValueError, match="guidance OviCFG skips layer 2; this network has 2, counted from 0"):
        pipe("a", guidance=OviCFG(layer=2))

    def refuses(one: Pass) -> str:
        return "its routes cannot be closed" if one.view == ALONE else ""

    monkeypatch.setattr(pipe.net.interaction, "refuses", refuses)
    with pytest.raises(ValueError, match="guidance ucg2: its routes cannot be closed"):
        pipe("a", guidance=UCG2())
    # The second of two steps is at 1/2.
    with pytest.raises(ValueError, match="guidance Interval: its routes cannot be closed"):
        pipe("a", guidance=Interval(UCG2(), high=0.5), steps=2)


def test_a_step_cache_is_of_one_clip_alone_and_says_what_it_did(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pipe("a", seed=3, steps=6)
    monkeypatch.setattr(pipe, "step_cache", 0.4)
    once = pipe("a", seed=3, steps=6)
    rows = [Row("x", "b", seed=4), Row("y", "a", seed=3)]
    again = pipe.generate(rows, steps=6)[1]
    np.testing.assert_allclose(again.audio, once.audio, atol=1e-4)
    said = once.meta["notes"][-1]
    assert again.meta["notes"][-1] == said
    assert re.match(r"of 12 passes [1-9]\d* were taken from the step cache", said)
    assert "notes" not in plain.meta and np.abs(plain.audio - once.audio).max() > 1e-4


# Records, rows and the command line


def test_a_folder_of_clips_made_with_a_step_cache_does_not_go_on_without(
    pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row("a", PROMPTS[0])]
    with monkeypatch.context() as patched:
        patched.setattr(pipe, "step_cache", 0.4)
        generate_files(pipe, rows, tmp_path, steps=2)
    assert "step cache" in json.loads((tmp_path / "a.json").read_text())["notes"][-1]
    with pytest.raises(ValueError, match=r"made with another step_cache \(0\.4, now 0\.0\)"):
        generate_files(pipe, rows, tmp_path, steps=2)


def test_a_rule_within_a_rule_stands_in_the_record(pipe: Pipeline) -> None:
    rule = Interval(UCG2(Scale(2.0, 1.0)), low=0.25)
    assert describe(pipe, guidance=rule)["guidance"] == {
        "rule": "Interval",
        "inside": {"rule": "UCG2", "scale": {"video": 2.0, "audio": 1.0}},
        "outside": {"rule": "NoGuidance"},
        "low": 0.25,
        "high": 1.0,
    }


def test_a_clip_without_a_negative_of_its_sound_is_finished_by_an_older_record_too(
    pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row("a", PROMPTS[0])]
    generate_files(pipe, rows, tmp_path)
    record = json.loads((tmp_path / "a.json").read_text())
    assert record.pop("negative_audio") is None and record.pop("step_cache") == 0.0 and record.pop("then") == []
    assert record["guidance"] == {"rule": "UCG2", "scale": {"video": 2.0, "audio": 2.0}}  # as ever
    (tmp_path / "a.json").write_text(json.dumps(record))
    monkeypatch.setattr(pipe, "generate", None)  # nothing is made
    assert generate_files(pipe, rows, tmp_path) == [tmp_path / "a.mp4"]
    with pytest.raises(ValueError, match=r"made with another negative_audio \(None, now 'hum'\)"):
        generate_files(pipe, [Row("a", PROMPTS[0], negative_audio="hum")], tmp_path)


def test_a_row_names_a_negative_of_its_sound(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a", "negative_audio": "hum"}\n{"prompt": "b"}\n')
    assert [row.negative_audio for row in read_rows(file)] == ["hum", None]
    file.write_text('{"prompt": "a", "negative_audio": 3}\n')
    with pytest.raises(ValueError, match="'negative_audio' is 3; it must be text"):
        read_rows(file)


def test_a_rule_of_ones_own_and_a_negative_of_the_sound_are_named_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("model", tiny_config(), tiny_state())
    Path("guiding_of_mine.py").write_text(MINE)
    argv = ["generate", "--ckpt", "model", "--prompt", "a", "--steps", "1", "-o", "x.mp4"]
    assert cli.main([*argv, "--guidance", "guiding_of_mine.Mine", "--negative-audio", "hum"]) == 0
    record = json.loads(Path("x.json").read_text())
    strengths = {"video": 2.0, "audio": 2.0}  # the model's own
    assert record["guidance"] == {"rule": "guiding_of_mine.Mine", "scale": strengths}
    assert (record["negative"], record["negative_audio"], record["step_cache"]) == ("", "hum", 0.0)
    capsys.readouterr()
    assert cli.main([*argv, "--step-cache", "0.2"]) == 0
    assert "note: of 2 passes 0 were taken from the step cache; none was run again\n" in capsys.readouterr().err
    assert json.loads(Path("x.json").read_text())["step_cache"] == 0.2
    assert cli.main([*argv, "--step-cache", "1.5"]) == 2
    assert "--step-cache is 1.5; it must be a number from 0 to 1" in capsys.readouterr().err
    for name, words in {
        "guiding_of_mine.Mein": "--guidance: guiding_of_mine .* has no 'Mein' .did you mean 'Mine'",
        "guiding_of_mine.other": "--guidance: guiding_of_mine.other is no guidance rule, a subclass of",
        "guiding_of_nobody.Mine": "--guidance: there is no module 'guiding_of_nobody' for guiding_of_nobody.Mine",
    }.items():
        assert cli.main([*argv, "--guidance", name]) == 2
        said = capsys.readouterr().err
        assert re.search(words, said) and said.count("\n") == 1
