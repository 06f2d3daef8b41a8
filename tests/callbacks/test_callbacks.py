"""What runs around a training step: saving, logging, previews."""

from __future__ import annotations

import errno
import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ccl.callbacks import EMA, Board, LossLog, Monitor, Preview, SaveCheckpoint, TaskRouter, Throughput
from ccl.callbacks.board import writer_told
from ccl.callbacks.monitor import part_of
from ccl.files import FileError
from ccl.media import read_clip
from ccl.storage.checkpoint import CheckpointError
from ccl.types import Batch
from helpers.fakes import GRID, FakeData, fit, make_module


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def saving(folder: Path, save: SaveCheckpoint, **kwargs: Any) -> None:
    options = {"max_steps": 7, "enable_checkpointing": True} | kwargs
    fit(make_module(), FakeData(size=1), folder, callbacks=[TaskRouter(), save], **options)


def test_checkpoints_come_every_n_steps_and_at_the_end(tmp_path: Path) -> None:
    saving(tmp_path, SaveCheckpoint(every=3, keep=None))
    assert names(tmp_path) == ["last.ckpt", *(f"step=00000{n}.ckpt" for n in (3, 6, 7))]
    assert (tmp_path / "checkpoints" / "last.ckpt").resolve().name == "step=000007.ckpt"


def test_old_checkpoints_go_but_milestones_stay(tmp_path: Path) -> None:
    saving(tmp_path, SaveCheckpoint(every=1, keep=2, milestone=3))
    assert names(tmp_path) == ["last.ckpt", *(f"step=00000{n}.ckpt" for n in (3, 6, 7))]


def test_lightnings_last_is_refused_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        saving(tmp_path, SaveCheckpoint(), ckpt_path="last")


def test_a_save_is_made_once_a_step_while_gradients_accumulate(tmp_path: Path) -> None:
    save = SaveCheckpoint(every=2, keep=None)
    steps: list[int] = []
    write = save.write
    save.write = lambda trainer, step: (steps.append(step), write(trainer, step))[1]  # type: ignore[method-assign]
    saving(tmp_path, save, max_steps=4, accumulate_grad_batches=3)
    assert steps == [2, 4]


@pytest.mark.parametrize("part", ["net", "ema"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, part: str) -> None:
    class Spoil(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            if trainer.global_step == 2:
                next(getattr(pl_module, part).parameters()).data.view(-1)[0] = float("nan")

    callbacks = [TaskRouter(), EMA(0.9), Spoil(), SaveCheckpoint(every=1)]
    with pytest.raises(
        CheckpointError, match=rf"the weights are not finite after step 2 \({part}\.\S+\), so they are not"
    ):
        fit(make_module(), FakeData(), tmp_path, callbacks=callbacks, max_steps=3, enable_checkpointing=True)
    assert names(tmp_path) == ["last.ckpt", "step=000001.ckpt"]
    assert (tmp_path / "checkpoints" / "last.ckpt").resolve().name == "step=000001.ckpt"


def test_every_loss_is_in_the_log_to_the_last_bit(tmp_path: Path) -> None:
    module = make_module()
    seen: list[float] = []
    step = module.training_step

    def watched(batch: Batch, batch_idx: int) -> dict[str, Any]:
        out = step(batch, batch_idx)
        seen.append(out["loss"].item())
        return out

    module.training_step = watched  # type: ignore[method-assign]
    fit(module, FakeData(), tmp_path, callbacks=[TaskRouter(), LossLog()], max_steps=5)
    rows = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == seen
    assert [row["batch"] for row in rows] == list(range(5)) and [row["step"] for row in rows] == list(range(1, 6))
    for row in rows:
        assert ("video" in row) == (row["task"] != "v2a") and ("audio" in row) == (row["task"] != "a2v")


def test_a_resume_drops_lines_beyond_its_checkpoint_and_half_a_line(tmp_path: Path) -> None:
    log = tmp_path / "losses.jsonl"
    log.write_text('{"batch": 0}\n{"batch": 1}\n{"batch": 2}\n{"bat')
    module = make_module()
    module.batches = 2
    fit(module, FakeData(), tmp_path, callbacks=[TaskRouter(), LossLog()], max_steps=1)
    assert [json.loads(line)["batch"] for line in log.read_text().splitlines()] == [0, 1, 2]
    assert "task" in log.read_text().splitlines()[-1]


def test_every_branch_of_a_run_has_its_own_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To 4, back to 2 with no prompt at all, and on from 4: no gap, and nothing of the other branch."""

    def go(steps: int, start: int | None = None, **model: Any) -> list[dict[str, Any]]:
        at = None if start is None else tmp_path / f"checkpoints/step=00000{start}.ckpt"
        callbacks = [TaskRouter(), LossLog(), SaveCheckpoint(every=2, keep=None)]
        options = {"max_steps": steps, "enable_checkpointing": True, "ckpt_path": at}
        fit(make_module(**model), FakeData(size=1), tmp_path, callbacks=callbacks, **options)
        return [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]

    first = go(4)
    branch = go(3, 2, text_dropout=1.0)
    assert branch[:2] == first[:2] and branch[2]["batch"] == 2 and branch[2] != first[2]
    on = go(5, 4)
    assert on[:4] == first and [row["batch"] for row in on] == list(range(5))
    left = [log.read_text().splitlines() for log in tmp_path.glob("losses.*-*.jsonl")]
    assert branch in [[json.loads(line) for line in lines] for lines in left]
    assert capsys.readouterr().err == ""
    for log in tmp_path.glob("losses*.jsonl"):
        log.write_text('{"batch": 0}\n{"batch": 1}\n')
    assert [row["batch"] for row in go(5, 4)] == [4]
    assert "losses.jsonl is of other steps than the checkpoint: it is kept as losses.000002-" in capsys.readouterr().err


@pytest.mark.parametrize("line", ['{"batch": "1"}', "3", '{"step": 1}', '{"ba', '{"batch": true}'])
def test_a_log_with_a_line_of_something_else_is_named(tmp_path: Path, line: str) -> None:
    log = tmp_path / "losses.jsonl"
    log.write_text(f'{{"batch": 0}}\n{line}\n{{"batch": 2}}\n')
    with pytest.raises(FileError, match=r"losses\.jsonl cannot be read as the losses of a run \("):
        fit(make_module(), FakeData(), tmp_path, callbacks=[TaskRouter(), LossLog()], max_steps=1)
    assert line in log.read_text()


class Break(Callback):
    """Ends a training within a step, and leaves the rest as a kill does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        if trainer.global_step == self.step:
            raise InterruptedError


def test_what_is_trained_twice_is_on_the_board_once(tmp_path: Path) -> None:
    for start, end in ((None, 5), (4, 6), (2, 9)):  # killed; killed again; gone back, to the end
        logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
        callbacks = [TaskRouter(), Preview(["a bell"], every=2, steps=1), Board(), SaveCheckpoint(2, None), Break(end)]
        options: dict[str, Any] = {"max_steps": 8, "log_every_n_steps": 1, "enable_checkpointing": True}
        if start is not None:
            options["ckpt_path"] = tmp_path / f"checkpoints/step=00000{start}.ckpt"
        with suppress(InterruptedError):
            fit(make_module(), FakeData(), tmp_path, callbacks=callbacks, logger=logger, **options)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [loss.step for loss in events.Scalars("loss")] == list(range(8))
    assert [image.step for image in events.Images("preview/0")] == [1, 3, 5, 7]


@pytest.mark.parametrize("late", [False, True])
def test_a_full_disk_under_the_board_ends_with_its_folder_named(
    late: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
    with pytest.raises(OSError, match="tensorboard") as raised, writer_told(tmp_path / "tensorboard"):
        if late:  # what the thread tells may come after the next write
            threading.excepthook = lambda args: None
        fit(make_module(), FakeData(), tmp_path, logger=logger, log_every_n_steps=1)
    assert raised.value.errno == errno.ENOSPC and "Traceback" not in capfd.readouterr().err


def test_tensorboard_shows_losses_norms_rates_speed_and_windows(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
    callbacks = [TaskRouter(), Monitor(), Throughput()]
    fit(make_module(), FakeData(), tmp_path, callbacks=callbacks, max_steps=8, logger=logger, log_every_n_steps=1)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= {"loss", "loss/joint/video", "loss/joint/audio", "loss/a2v/video", "loss/v2a/audio", "tasks/joint"}
    assert tags >= {f"grad_norm/{part}" for part in ("video", "audio", "cross", "text")}
    assert tags >= {"lr/cross", "lr/streams", "clips/s", "clips_seen", "window/drift_seconds", "window/unattended"}
    assert not tags & {"loss/a2v/audio", "loss/v2a/video"}
    assert events.Scalars("clips_seen")[-1].value == 8 * 4


def test_gradient_norms_by_part_add_up(tmp_path: Path) -> None:
    logged: dict[str, Any] = {}

    class Norms(Monitor):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            pl_module.log_dict = lambda values, **_: logged.update(values)
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
            del pl_module.log_dict
            grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
            logged["total"] = torch.nn.utils.get_total_norm(grads)

    fit(make_module(), FakeData(), tmp_path, callbacks=[TaskRouter(), Norms(every=1)], max_steps=1)
    parts = torch.stack([logged[f"grad_norm/{part}"] for part in ("video", "audio", "cross", "text")])
    torch.testing.assert_close(parts.square().sum().sqrt(), logged["total"])


def test_parameters_belong_to_the_part_their_name_says() -> None:
    assert part_of("net.blocks.0.interaction.a2v.q.weight") == part_of("net.trunk.layers.0.weight") == "cross"
    assert part_of("net.blocks.0.video.self_attn.q.weight") == part_of("net.video.head.weight") == "video"
    assert part_of("net.audio.patch_embedding.weight") == "audio"
    assert part_of("text.video.weight") == "text"


def test_clips_seen_outlive_a_resume() -> None:
    throughput, other = Throughput(), Throughput()
    throughput.clips = 12
    other.load_state_dict(throughput.state_dict())
    assert other.clips == 12


def test_previews_are_files_and_pictures_and_change_nothing(tmp_path: Path) -> None:
    weights = []
    for previews in (False, True):
        folder = tmp_path / str(previews)
        module = make_module()
        callbacks = [TaskRouter(), EMA(0.5), LossLog()]
        if previews:
            callbacks.append(Preview(['a man says "one"', "a bell"], every=2, steps=2))
        logger = TensorBoardLogger(folder, name="", version="tensorboard")
        fit(module, FakeData(), folder, callbacks=callbacks, max_steps=3, logger=logger)
        weights.append([p.detach().clone() for p in module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert (tmp_path / "False/losses.jsonl").read_text() == (tmp_path / "True/losses.jsonl").read_text()

    shown = sorted(p.relative_to(tmp_path / "True/previews").as_posix() for p in (tmp_path / "True").rglob("*.mp4"))
    assert shown == [f"step_00000{step}/{i}.mp4" for step in (2, 3) for i in (0, 1)]
    clip = read_clip(tmp_path / "True/previews" / shown[0])
    assert clip.video is not None and clip.video.shape == (GRID.frames, GRID.height, GRID.width, 3)
    assert clip.audio is not None and np.isfinite(clip.audio).all()

    events = EventAccumulator(str(tmp_path / "True/tensorboard"))
    events.Reload()
    assert {"preview/0", "preview/1"} <= set(events.Tags()["images"])
    assert {"preview/0/sound", "preview/1/sound"} <= set(events.Tags()["audio"])
    assert events.Images("preview/0")[0].encoded_image_string.startswith(b"GIF89a")
    assert [image.step for image in events.Images("preview/0")] == [1, 2]


def test_a_preview_that_cannot_be_written_does_not_end_the_training(tmp_path: Path) -> None:
    (tmp_path / "previews").write_text("in the way")
    callbacks = [TaskRouter(), Preview(["a bell"], every=1, steps=1)]
    with pytest.warns(UserWarning, match="no preview at step 1"):
        trainer = fit(make_module(), FakeData(), tmp_path, callbacks=callbacks, max_steps=1)
    assert trainer.global_step == 1


def test_nonsense_intervals_are_refused() -> None:
    with pytest.raises(ValueError, match="every is 0"):
        Preview(["a bell"], every=0)
    for every in (0, -1):
        with pytest.raises(ValueError, match=f"SaveCheckpoint's every is {every}; it must be a whole number"):
            SaveCheckpoint(every=every)
    with pytest.raises(ValueError, match="keep is 0"):
        SaveCheckpoint(keep=0)
