"""Validation: the same draws each time, all bins of time equally often, and means that a loop over clips gives too."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from ccl.ablation.finished import whole_lines
from ccl.callbacks import LossLog, SaveCheckpoint, TaskRouter
from ccl.codecs.base import Codec
from ccl.flow import LogitNormal
from ccl.tasks import PAPER_TASKS
from ccl.training.losses import Losses
from ccl.training.validation import Binned, stratified
from ccl.types import AV, Batch
from helpers.fakes import GRID, FakeData, fit, make_batch, make_module

BOTH = AV(True, True)
EVERY_SECOND: dict[str, Any] = {"val_check_interval": 2, "check_val_every_n_epoch": None}


class Held(FakeData):
    """With clips for validation: batches of 4, 4 and 3."""

    val_shards = "here"

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        return [DataLoader([make_batch(100 + i, range(n)) for i, n in enumerate((4, 4, 3))], batch_size=None)]  # type: ignore[arg-type]


def validations(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    return [row for row in rows if "validation" in row]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 16])
def test_all_bins_are_visited_equally_often_and_each_meets_each(size: int) -> None:
    times = [stratified(size, bins=4, seed=0, place=place) for place in range(64)]
    bins = [AV.zip(lambda t: (t * 4).long(), one) for one in times]
    for each in range(2):
        assert set(Counter(int(b) for one in bins for b in one[each]).values()) == {16 * size}
    assert len({(int(v), int(a)) for one in bins for v, a in zip(one.video, one.audio, strict=True)}) == 16


def test_means_are_those_of_a_loop_over_clips() -> None:
    binned, found = Binned(PAPER_TASKS, BOTH, 3, "cpu"), defaultdict(list)
    for place, size in enumerate((5, 2)):
        times = stratified(size, bins=3, seed=1, place=place)
        for name in ("single", "joint"):
            losses = AV(torch.rand(size), torch.rand(size))
            binned.add(name, PAPER_TASKS[name], Losses((losses,), {}), times)
            for row in range(size):
                for stream, x in losses._asdict().items():
                    t = times.video if name == "joint" else getattr(times, stream)  # joint has one time
                    found[f"{name}/{stream}", int(3 * t[row])].append(float(x[row]))
    means = binned.means(binned.sums)
    for (key, bin), values in found.items():
        name = ("t0.00-0.33", "t0.33-0.67", "t0.67-1.00")[bin]
        assert means.pop(f"{key}/{name}") == pytest.approx(sum(values) / len(values))
    assert set(means) == {key for key, _ in found}  # and of all bins, each weighing the same
    bins = [sum(values) / len(values) for (key, _), values in found.items() if key == "joint/audio"]
    assert means["joint/audio"] == pytest.approx(sum(bins) / len(bins))


def test_sums_of_processes_add_up_to_those_of_one() -> None:
    parts = [Binned(PAPER_TASKS, BOTH, 4, "cpu") for _ in range(3)]
    for place in range(4):
        times = stratified(3, bins=4, seed=0, place=place)
        losses = Losses((AV(torch.rand(3), torch.rand(3)),), {})
        for binned in (parts[0], parts[1 + place % 2]):
            binned.add("joint", PAPER_TASKS["joint"], losses, times)
    one, together = parts[0].means(parts[0].sums), parts[0].means((parts[1].sums + parts[2].sums) / 2)
    assert one.keys() == together.keys() and all(one[key] == pytest.approx(together[key]) for key in one)


def test_an_untrained_run_validates_the_same_each_time_and_whatever_its_training_draws(tmp_path: Path) -> None:
    found = []
    for folder, time in (("a", None), ("b", LogitNormal(shift=5.0))):
        module = make_module(time=time)
        module.optimizer_config = replace(module.optimizer_config, lr=0.0, lr_cross=0.0)
        fit(module, Held(), tmp_path / folder, callbacks=[TaskRouter(), LossLog()], max_steps=4, **EVERY_SECOND)
        found += [row["validation"] for row in validations(tmp_path / folder)]
    assert len(found) == 4 and all(one == found[0] for one in found)
    assert {key for key in found[0] if key.count("/") == 1} == {
        "single/video", "single/audio", "a2v/video", "v2a/audio", "joint/video", "joint/audio",
    }  # fmt: skip
    assert {key for key in found[0] if key.startswith("joint/video/")} == {
        f"joint/video/t{a}" for a in ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")
    }


def test_validation_changes_nothing_of_a_training(tmp_path: Path) -> None:
    for folder, data in (("with", Held()), ("without", FakeData())):
        fit(make_module(), data, tmp_path / folder, callbacks=[TaskRouter(), LossLog()], max_steps=4, **EVERY_SECOND)
    logs = [(tmp_path / name / "losses.jsonl").read_text() for name in ("with", "without")]
    assert [*whole_lines(logs[0])] == [*whole_lines(logs[1])] and logs[0] != logs[1]


def test_a_batch_of_media_is_encoded_once_for_all_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = torch.rand(4, GRID.samples) - 0.5
    pictures = torch.randint(0, 255, (4, 3, GRID.frames, GRID.height, GRID.width), dtype=torch.uint8)
    media = replace(make_batch(100, range(4)), latents=None, media=AV(pictures, sounds))
    ready = replace(media, media=None, latents=make_module().codec.encode(AV(pictures / 127.5 - 1, sounds), GRID))
    encoded: list[int] = []
    encode = Codec.encode
    monkeypatch.setattr(Codec, "encode", lambda *args: (encoded.append(1), encode(*args))[1])
    rows = []
    for name, batch in (("media", media), ("ready", ready)):
        data = Held()
        monkeypatch.setattr(data, "val_dataloader", lambda batch=batch: [DataLoader([batch], batch_size=None)])
        fit(make_module(), data, tmp_path / name, callbacks=[TaskRouter(), LossLog()], max_steps=2, **EVERY_SECOND)
        rows += [row["validation"] for row in validations(tmp_path / name)]
    assert len(encoded) == 2 and rows[0] == rows[1]  # before training and after its second step


def test_the_board_and_a_resume_have_each_validation_once(tmp_path: Path) -> None:
    class Break(Callback):
        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            if trainer.global_step == 5 and trainer.ckpt_path is None:
                raise InterruptedError

    def go(**options: Any) -> None:
        logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
        callbacks = [TaskRouter(), LossLog(), SaveCheckpoint(every=2), Break()]
        options = {"max_steps": 6, "enable_checkpointing": True, "logger": logger, **EVERY_SECOND} | options
        fit(make_module(), Held(), tmp_path, callbacks=callbacks, **options)

    with pytest.raises(InterruptedError):
        go()
    go(ckpt_path=tmp_path / "checkpoints/step=000004.ckpt")
    assert [(row["batch"], row["step"]) for row in validations(tmp_path)] == [(1, 2), (3, 4), (5, 6)]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for key, value in validations(tmp_path)[-1]["validation"].items():
        shown = events.Scalars(f"val_loss/{key}")
        assert [one.step for one in shown] == [1, 3, 5] and shown[-1].value == pytest.approx(value)


def test_clips_without_sound_are_told_apart(tmp_path: Path) -> None:
    class Mute(Held):
        def val_dataloader(self) -> list[DataLoader[Batch]]:
            batch = make_batch(100, range(4))
            assert batch.latents is not None
            mute = replace(batch, latents=AV(batch.latents.video, None))
            return [DataLoader([batch, mute], batch_size=None)]  # type: ignore[arg-type]

    fit(make_module(), Mute(), tmp_path, callbacks=[TaskRouter(), LossLog()], max_steps=2, **EVERY_SECOND)
    (row,) = validations(tmp_path)
    assert {"single_video/video", "single_video/video/t0.00-0.25", "joint/audio"} <= row["validation"].keys()
    assert not any(key.startswith("single_audio") or key == "single_video/audio" for key in row["validation"])


def test_nonsense_bins_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.bins is 0; it must be a whole number from 1"):
        make_module(bins=0)
