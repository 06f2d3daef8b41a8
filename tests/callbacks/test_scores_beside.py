"""Scores while training goes on: beside it, of the checkpoint's own weights, and never in its way."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ccl import cli
from ccl.ablation.finished import whole_lines
from ccl.ablation.progress import last_losses
from ccl.callbacks import EMA, Evaluate, LossLog, SaveCheckpoint, TaskRouter
from ccl.callbacks import evaluate as module_of
from ccl.media import write_clip
from ccl.storage.source import read_checkpoint
from helpers import ROOT
from helpers.fakes import FakeData, fit, make_module
from helpers.tiny_clips import tiny_clip

# In place of the command: argv is "-c", the priority, "evaluate", and its flags.
SAYS = """\
import csv, json, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("-o") + 1])
while not (out.parents[1] / "go").exists(): time.sleep(0.01)
name = sys.argv[sys.argv.index("--name") + 1]
lines = [f"{name},{x}" for x in ("easy,mouth,0.25", "mean,mouth,0.5", "mean,wer,")]
(out / "summary.csv").write_text("\\n".join(["method,subset,column,value", *lines]))
rows = [{"metric": "mouth", "value": 0.5, "reason": None}, {"metric": "wer", "value": None, "reason": "no weights"}]
rows = [{"method": name, **row} for row in rows]
(out / "scores.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""
FAILS = "import sys; print('a line'); sys.exit('ccl: error: there is no metric lips')"


class At(Callback):
    """Does something after a step, once."""

    def __init__(self, step: int, do: Any) -> None:
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            self.do(trainer)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def scores(folder: Path) -> list[tuple[int, dict[str, float]]]:
    return [(line["step"], line["evaluation"]) for line in lines(folder) if "evaluation" in line]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, in which evaluations may end at once."""
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "go").touch()
    return tmp_path


def train(folder: Path, evaluate: Evaluate, *more: Callback, steps: int, **options: Any) -> tuple[Any, list[str]]:
    """The trainer, and what was told of evaluations."""
    callbacks = [TaskRouter(), EMA(0.5), LossLog(), evaluate, *more]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer = fit(make_module(), FakeData(), folder, callbacks=callbacks, max_steps=steps, **options)
    return trainer, [text for one in told if "evaluation" in (text := str(one.message))]


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of, "BESIDE", SAYS)


@pytest.mark.usefixtures("stood_in")
def test_values_are_a_line_of_their_own_that_readers_of_losses_pass_over(run: Path) -> None:
    logger = TensorBoardLogger(run, name="", version="tensorboard")
    _, told = train(run, Evaluate(["mouth", "wer"], every=2), steps=2, logger=logger)
    assert told == ["evaluation of step 2: wer has no value: no weights"]
    assert lines(run)[-1] == {"batch": 1, "step": 2, "evaluation": {"mouth": 0.5, "easy/mouth": 0.25}}
    assert [line["step"] for line in whole_lines((run / "losses.jsonl").read_text())] == [1, 2]
    assert last_losses(run / "losses.jsonl")[0] == 2
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("eval/mouth")] == [(1, 0.5)]
    assert not (run / "evaluations/step_000002/model").exists()  # the weights are gone, what they gave stays


def test_values_are_the_models_and_not_those_of_true_clips_and_one_for_each_protocol(tmp_path: Path) -> None:
    for folder, frames in (("made", 50), ("true", 25)):
        (tmp_path / folder).mkdir()
        write_clip(replace(tiny_clip(), video=np.zeros((frames, 32, 32, 3), np.uint8)), tmp_path / folder / "a.mp4")
        write_clip(replace(tiny_clip(), audio=None), tmp_path / folder / "b.mp4")
    for name in ("wide", "narrow"):
        (tmp_path / f"{name}.yaml").write_text("lengths:\n  init_args: {}\nlufs:\n  init_args: {}\n")
    argv = ["evaluate", "--methods", f"step 2={tmp_path / 'made'}", "--reference", str(tmp_path / "true")]
    argv += ["--metrics", "lengths", "-o"]
    assert cli.main([*argv, str(tmp_path / "one")]) == 0
    values, faults = module_of.found_in(tmp_path / "one", "step 2")
    with (tmp_path / "one/summary.csv").open() as file:
        said = {line["method"]: float(line["value"]) for line in csv.DictReader(file)}
    assert values == {"av_length": said["step 2"]} and said["step 2"] != said["ceiling"] and not faults
    both = [str(tmp_path / f"{name}.yaml") for name in ("wide", "narrow")]
    assert cli.main([*argv, str(tmp_path / "two"), "--protocol", *both]) == 0
    values, faults = module_of.found_in(tmp_path / "two", "step 2")
    assert values == {f"{name}/av_length": said["step 2"] for name in ("wide", "narrow")} and not faults


@pytest.mark.usefixtures("stood_in")
def test_steps_go_on_meanwhile_and_one_that_would_be_the_second_is_left_out(run: Path) -> None:
    (run / "go").unlink()
    evaluate = Evaluate(["mouth"], every=2)
    seen = At(5, lambda trainer: (seen_at.append(evaluate._running.process.poll()), (run / "go").touch()))
    seen_at: list[int | None] = []
    _, told = train(run, evaluate, seen, steps=5)
    assert told[:2] == [f"no evaluation at step {step}: that of step 2 is still at work" for step in (4, 5)]
    assert seen_at == [None]  # at work while the fifth step was made
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 2] and scores(run)[0][0] == 2


@pytest.mark.usefixtures("stood_in")
def test_what_is_scored_is_the_average_of_the_step_and_training_stays_what_it_is(run: Path, tmp_path: Path) -> None:
    kept: dict[str, torch.Tensor] = {}

    def keep(trainer: Any) -> None:
        state, step = read_checkpoint(next(run.glob("evaluations/step_000002/model/checkpoints/step=*.ckpt")))
        assert step == 2
        kept.update(state)
        (run / "go").touch()

    (run / "go").unlink()
    with warnings.catch_warnings(record=True):
        train(
            run, Evaluate(["mouth"], every=2), At(2, keep), SaveCheckpoint(every=2), steps=2, enable_checkpointing=True
        )
    state, _ = read_checkpoint(run / "checkpoints" / "step=000002.ckpt")
    assert kept.keys() == state.keys() and all(torch.equal(kept[key], state[key]) for key in kept)
    alone = fit(make_module(), FakeData(), tmp_path / "alone", callbacks=[TaskRouter(), EMA(0.5)], max_steps=2)
    ours = {**alone.lightning_module.ema.net.state_dict(prefix="net.")}
    assert all(torch.equal(kept[key], value) for key, value in ours.items())


@pytest.mark.usefixtures("stood_in")
def test_an_evaluation_that_is_killed_is_told_and_hurts_nothing(run: Path) -> None:
    (run / "go").unlink()
    evaluate = Evaluate(["mouth"], every=2)
    kill = At(2, lambda trainer: os.kill(evaluate._running.process.pid, signal.SIGKILL))
    later = At(3, lambda trainer: (time.sleep(0.2), (run / "go").touch()))
    trainer, told = train(run, evaluate, kill, later, steps=4)
    assert told[0] == "evaluation of step 2: it was ended by signal 9"
    assert trainer.global_step == 4 and [step for step, _ in scores(run)] == [4]


def test_a_fault_is_told_once_and_ends_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of, "BESIDE", FAILS)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    evaluate = Evaluate(["lips"], every=1)
    wait = [At(step, lambda trainer: evaluate._running.process.wait()) for step in (1, 2)]
    trainer, told = train(run, evaluate, *wait, steps=3)
    assert trainer.global_step == 3 and told == ["evaluation of step 1: ccl: error: there is no metric lips"]
    assert scores(run) == [] and not list(run.glob("evaluations/*/model"))


def test_scores_that_are_gone_end_no_training(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of, "BESIDE", "")  # it ends well and has written nothing
    evaluate = Evaluate(["mouth"], every=2)
    ended = At(3, lambda trainer: evaluate._running and evaluate._running.process.wait())  # else step 4 is left out
    trainer, told = train(run, evaluate, ended, steps=4)
    assert trainer.global_step == 4 and len(told) == 2
    assert all("what it found cannot be read or kept" in one and "summary.csv" in one for one in told), told


def test_a_run_without_a_config_or_room_is_told_and_goes_on(tmp_path: Path) -> None:
    trainer, (told,) = train(tmp_path, Evaluate(["mouth"], every=1), steps=1)
    assert trainer.global_step == 1 and told.startswith("no evaluation at step 1: ") and "has no config.yaml" in told
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "evaluations").write_text("in the way")
    trainer, (told,) = train(tmp_path, Evaluate(["mouth"], every=1), steps=1)
    assert trainer.global_step == 1 and told.startswith("no evaluation at step 1: ")


@pytest.mark.usefixtures("stood_in")
def test_a_stopped_training_leaves_the_evaluation_and_goes_on_with_it_without_double_lines(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(trainer: Any) -> None:
        trainer.should_stop = True

    (run / "go").unlink()
    options = {"enable_checkpointing": True}
    train(run, Evaluate(["mouth"], every=2), At(3, stop), SaveCheckpoint(every=3), steps=6, **options)
    assert "the evaluation of step 2 is left; it goes on when the training does" in capsys.readouterr().err
    assert scores(run) == [] and (run / "evaluations/step_000002/model").is_dir()
    (run / "go").touch()
    for _ in range(2):  # the second time there is nothing left of it, and the lines stay
        evaluate = Evaluate(["mouth"], every=2)
        wait = [At(step, lambda trainer: evaluate._running and evaluate._running.process.wait()) for step in (4, 5)]  # noqa: B023
        start = str(run / "checkpoints" / "step=000003.ckpt")
        train(run, evaluate, *wait, SaveCheckpoint(every=3, keep=None), steps=6, ckpt_path=start, **options)
        assert [step for step, _ in scores(run)] in ([2, 6], [2, 4, 6])
        assert [line["step"] for line in lines(run) if "evaluation" not in line] == [1, 2, 3, 4, 5, 6]
    assert not (run / "losses.000006.jsonl").exists() and len(list(run.glob("losses*"))) <= 2


@pytest.mark.usefixtures("stood_in")
def test_a_finished_training_waits_no_longer_than_it_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "go").unlink()
    train(run, Evaluate(["mouth"], every=2, wait=0.1), steps=2)
    said = capsys.readouterr().err
    assert "waiting for the evaluation of step 2, at most 0.1 s" in said
    assert "the evaluation of step 2 is left; it goes on with: ccl evaluate --ckpt" in said
    assert (run / "evaluations/step_000002/model/checkpoints/step=000002.ckpt").is_file()


def test_nonsense_is_refused() -> None:
    named = {"metrics": ["wer"], "options": ["--name=mine"]}
    for given, said in (
        ({"metrics": []}, "metrics are empty"),
        ({"metrics": ["wer"], "every": 0}, "every is 0"),
        (named, "options have --name=mine, which it gives itself"),
    ):
        with pytest.raises(ValueError, match=said):
            Evaluate(**given)


TINY = """\
model:
  net: {init_args: {video: {width: 64, ffn: 64}, audio: {width: 32, ffn: 32}, layers: 1, head_dim: 32}}
  optimizer: {schedule: constant}
  pretrained: null
  freeze: null
data: {init_args: {root: ROOT/world, clips: 8, batch_size: 2, makers: 0}}
trainer:
  callbacks:
    - class_path: ccl.callbacks.TaskRouter
    - class_path: ccl.callbacks.EMA
    - class_path: ccl.callbacks.LossLog
    - class_path: ccl.callbacks.SaveCheckpoint
      init_args: {every: 2, keep: null}
  enable_progress_bar: false
  enable_model_summary: false
sampling: {steps: 2}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_values_are_those_of_ccl_evaluate_of_the_same_steps_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    rows = (ROOT / "evaluation/testset/world/easy.jsonl").read_text().splitlines()[:2]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "tiny.yaml").write_text(TINY.replace("ROOT", str(tmp_path)))
    own = yaml.safe_load((ROOT / "configs/trainer/evaluate.yaml").read_text())
    own["trainer"]["callbacks+"][0]["init_args"] |= {"every": 2, "testset": str(tmp_path / "rows.jsonl"), "nice": 0}
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(own))
    configs = [ROOT / "configs/joint.yaml", tmp_path / "tiny.yaml", tmp_path / "evaluate.yaml"]
    flags = [word for config in configs for word in ("--config", str(config))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a step 4 that finds step 2 at work
        assert cli.main(["fit", *flags, "--runs_dir", str(tmp_path), "--name", "a", "--trainer.max_steps", "4"]) == 0
    run = tmp_path / "a"
    log = run / "evaluations/step_000002/log.txt"
    ((step, found),) = [one for one in scores(run) if one[0] == 2] or pytest.fail(log.read_text())
    assert lines(run)[-1]["step"] == 2 and lines(run)[-2]["step"] == 4  # training was over long before
    ckpt, out = str(run / "checkpoints" / "step=000002.ckpt"), tmp_path / "again"
    asked = ["--testset", str(tmp_path / "rows.jsonl"), "--metrics", "mouth", "colours", "--limit", "8"]
    assert cli.main(["evaluate", "--ckpt", ckpt, "-o", str(out), *asked]) == 0
    with (out / "summary.csv").open() as file:
        again = {line["column"]: float(line["value"]) for line in csv.DictReader(file) if line["subset"] == "easy"}
    assert again and all(found[name] == pytest.approx(value, abs=1e-6) for name, value in again.items())
    assert (run / "evaluations/step_000002/report.html").is_file() and step == 2


@pytest.mark.usefixtures("stood_in")
def test_after_an_error_nothing_of_the_training_stays_open_or_at_work(run: Path) -> None:
    def fails(trainer: Any) -> None:
        assert evaluate._running is not None and log._file is not None
        left.extend((evaluate._running.process, log._file))
        raise InterruptedError

    (run / "go").unlink()
    evaluate, log, left = Evaluate(["mouth"], every=2), LossLog(), []
    callbacks = [TaskRouter(), EMA(0.5), log, evaluate, At(3, fails)]
    with pytest.raises(InterruptedError):
        fit(make_module(), FakeData(), run, callbacks=callbacks, max_steps=4)
    process, file = left
    assert process.poll() is not None and file.closed
