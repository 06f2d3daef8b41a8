"""Mixed data: clips of one stream train that stream, are told as such, and never touch the other one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from ccl.callbacks import LossLog, TaskRouter
from ccl.cli.parts import build
from ccl.data.datamodule import ShardData
from ccl.model import DualStreamTransformer
from ccl.tasks import PAPER_TASKS, Given, Task, Term, alone
from ccl.training.mixed import check_alone
from ccl.types import AV, CLOSED, STREAMS, VOICE, VOICE_SECONDS, Batch, Route, Stream
from helpers.fakes import GRID, KINDS, fit, make_batch, make_codec, make_module
from helpers.mixed import make_mixed
from helpers.tiny import awake
from helpers.trainings import losses, train_all

PICTURE = {"video": Given("first_frame", prob=0.5)}
pytestmark = [  # as `ccl fit` leaves them out
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has"),
    pytest.mark.filterwarnings("ignore:The .* does not have many workers"),
]
CONFIGS = Path(__file__).parents[2] / "configs"


# What is left of the tasks


def test_of_the_papers_tasks_one_is_left_for_pictures_and_one_for_sound() -> None:
    video, audio = alone(PAPER_TASKS, "video"), alone(PAPER_TASKS, "audio")
    assert video.keys() == {"single_video"} and audio.keys() == {"single_audio"}
    assert video["single_video"].terms == (Term(CLOSED, PICTURE, weight={"video": 1.0}),)
    assert audio["single_audio"].terms == (Term(CLOSED, {}, weight={"audio": 1.0}),)
    assert video["single_video"].prob == pytest.approx(0.85)  # all but v2a
    assert audio["single_audio"].prob == pytest.approx(0.85)  # all but a2v


def test_terms_of_one_task_that_come_to_the_same_weigh_as_they_did_together() -> None:
    joint = Term(Route(), PICTURE, shared_time=True, name="joint")
    driven = Term(Route(v2a=False), {**PICTURE, "audio": Given("all")}, weight={"video": 0.5}, name="driven")
    (left,) = alone({"synergy": Task(1.0, (joint, driven))}, "video").values()
    assert left.terms == (Term(CLOSED, PICTURE, weight={"video": 1.5}, name="joint_video"),)


def test_tasks_that_differ_in_what_is_given_stay_apart() -> None:
    going_on = Task(0.3, (Term(Route(), {"video": Given("prefix", seconds=(0.1, 0.2))}),))
    assert alone({**PAPER_TASKS, "continue": going_on}, "video").keys() == {"single_video", "continue_video"}


def test_clips_that_would_train_nothing_are_refused_before_they_come() -> None:
    v2a = {"v2a": PAPER_TASKS["v2a"]}
    with pytest.raises(
        ValueError, match=r"no task of model\.tasks counts the loss of video, so clips of video alone train"
    ):
        check_alone(v2a, "video", None)
    check_alone(v2a, "audio", None)


def test_ddp_that_waits_for_every_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match=r"set trainer\.strategy\.init_args\.find_unused_parameters true"):
        check_alone(PAPER_TASKS, "video", DDPStrategy(find_unused_parameters=False))
    check_alone(PAPER_TASKS, "video", DDPStrategy(find_unused_parameters=True))


# Who is moved


def only(batch: Batch, stream: Stream) -> Batch:
    assert batch.latents is not None
    latents = AV(*(z if name == stream else None for name, z in zip(STREAMS, batch.latents, strict=True)))
    voices = {VOICE: torch.randn(len(batch.id), round(VOICE_SECONDS * GRID.sample_rate))}
    return replace(batch, latents=latents, extras=voices if stream == "audio" else batch.extras)


def parameters(net: DualStreamTransformer, stream: Stream) -> Iterator[nn.Parameter]:
    """Of a stream: its ends and its blocks."""
    yield from getattr(net, stream).parameters()
    for block in net.blocks:
        yield from getattr(block, stream).parameters()


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_of_one_stream_never_moves_the_other_one_whatever_the_task(kind: str, stream: Stream) -> None:
    module, other = make_module(kind), STREAMS[1 - STREAMS.index(stream)]
    net, _ = module.built
    awake(net)
    optimizer = module.optimizer_config.build([net], net.cross_modal_parameters(), max_steps=10)["optimizer"]
    for task in (PAPER_TASKS["joint"], *all_alone(stream).values()):
        batch = make_batch(0, range(3)) if task is PAPER_TASKS["joint"] else only(make_batch(0, range(3)), stream)
        before = [p.clone() for p in parameters(net, other)]
        optimizer.zero_grad()
        module.weighed(module.losses(batch, task, index=0), task).mean().backward()
        moved = [p.grad for p in parameters(net, stream)]
        assert all(gradient is not None for gradient in moved) and any(gradient.any() for gradient in moved)
        optimizer.step()  # joint first: from there on there is momentum, which would move what has a gradient of zero
        if task is not PAPER_TASKS["joint"]:
            assert all(p.grad is None for p in parameters(net, other))
            assert all(torch.equal(p, was) for p, was in zip(parameters(net, other), before, strict=True))


def all_alone(stream: Stream) -> dict[str, Task]:
    """What is left of every task that a config of this repository has, and counts that stream."""
    found: dict[str, Task] = {}
    for path in sorted((CONFIGS / "tasks").glob("*.yaml")):
        tasks = build(dict[str, Task], yaml.safe_load(path.read_text()), path.name)
        if any(task.alone(stream) for task in tasks.values()):
            found |= {f"{path.stem}/{name}": task for name, task in alone(tasks, stream).items()}
    return found


# What counts


class Kept(Callback):
    """Gradients of a step, and its batches."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.gradients: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}


def one_step(shards: Path, folder: Path, quota: dict[str, int] | None, window: int, tasks: Any) -> tuple[Any, Kept]:
    kept, module = Kept(), make_module(tasks=tasks)
    awake(module.built[0])
    data = ShardData(str(shards), GRID, make_codec(), batch_size=2, shuffle=0, quota=quota)
    fit(module, data, folder, callbacks=[TaskRouter(), LossLog(), kept], max_steps=1, accumulate_grad_batches=window)
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()], kept


@pytest.mark.parametrize("route", [Route(False, False), Route(True, True)])
def test_a_third_of_mute_clips_leaves_the_audio_loss_that_of_the_sounding_ones_and_video_learns_of_all(
    route: Route, tmp_path: Path
) -> None:
    """One step of two sounding batches and a mute one, beside one of the same two sounding batches alone."""
    tasks = {"all": Task(1.0, (Term(route, PICTURE),))}
    mixed, sounding = make_mixed(tmp_path / "mixed", 8, 4), make_mixed(tmp_path / "sounding", 8, 0)
    rows, all_of_it = one_step(mixed, tmp_path / "a", {"both": 2, "video": 1}, 3, tasks)
    alone_rows, part = one_step(sounding, tmp_path / "b", None, 2, tasks)
    assert [batch.id for batch in all_of_it.batches[:2]] == [batch.id for batch in part.batches]
    assert all(id.startswith("video") for id in all_of_it.batches[2].id)
    # The losses that are logged: sound of those that have it, to the last bit; pictures of all.
    assert [row["audio"] for row in rows if "audio" in row] == [row["audio"] for row in alone_rows]
    assert rows[2].keys() == {"batch", "step", "task", "loss", "video"} and rows[2]["task"] == "all_video"
    # The loss that is lowered: of each stream the mean over its batches, though Lightning divides all by three.
    module = make_module(tasks=tasks)
    awake(module.built[0])
    streams: AV[list[Tensor]] = AV([], [])
    for index, batch in enumerate(all_of_it.batches):
        (task,) = module.tasks_of(batch).values()
        for each, x in zip(streams, module.losses(batch, task, index=index).mean().terms[0], strict=True):
            each += [] if x is None else [x]
    assert (len(streams.video), len(streams.audio)) == (3, 2)
    (torch.stack(streams.video).mean() + torch.stack(streams.audio).mean()).backward()
    wanted = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert all_of_it.gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(all_of_it.gradients[name], gradient, rtol=1e-5, atol=1e-7)
    if not route.v2a:  # the streams apart, so that the audio stream's gradient is that of the sounding part alone
        of_sound = [name for name in wanted if ".audio." in name]
        assert of_sound
        for name in of_sound:
            torch.testing.assert_close(all_of_it.gradients[name], part.gradients[name], rtol=1e-5, atol=1e-7)


def test_weights_by_stream_multiply_its_loss() -> None:
    batch, task = make_batch(0, range(3)), PAPER_TASKS["single"]
    module = make_module(loss_weights={"audio": 0.25})
    losses = module.losses(batch, task, index=0)
    video, audio = losses.mean().terms[0]
    torch.testing.assert_close(module.weighed(losses.mean(), task), video + 0.25 * audio)


def test_a_network_of_one_stream_trains_its_own_tasks_on_all_that_have_it(tmp_path: Path) -> None:
    """Stage 1 on mixed data: sound of films and sound alone, and no batch of mute clips."""
    data = ShardData(str(make_mixed(tmp_path, 4, 4, 4)), GRID, make_codec(), batch_size=2)
    data.serve(AV(False, True), make_module().built[1])
    assert data.alone == []
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(40), strict=False)]
    assert {id.rstrip("0123456789") for batch in batches for id in batch.id} == {"both", "audio"}
    assert all(batch.latents.video is None and batch.weight == AV(1.0, 1.0) for batch in batches)


# The run as a whole


QUOTA = {"quota": {"both": 2, "video": 1, "audio": 1}, "workers": 2}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("own", [QUOTA, pytest.param({}, marks=pytest.mark.slow)], ids=["quota", "drawn"])
def test_a_mixed_run_that_was_stopped_goes_on_to_the_last_bit(tmp_path: Path, own: dict[str, Any]) -> None:
    """Within a window of four batches, read by two processes with a quota, or by this one without."""
    shards = str(make_mixed(tmp_path, 8, 4, 4))
    one: dict[str, Any] = {"shards": shards, "steps": 4, "size": 2, "accumulate": 4, **own}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    halves = one | {"folder": str(stopped), "save": 1}
    train_all(tmp_path, [one | {"folder": str(whole)}, halves | {"stop": 6}, halves | {"ckpt_path": "last"}])
    assert losses(whole) == losses(stopped)
    states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, stopped)]
    assert all(torch.equal(x, states[1]["state_dict"][key]) for key, x in states[0]["state_dict"].items())
    if own:
        tasks = Counter(row["task"] for row in losses(whole))
        assert (tasks["single_video"], tasks["single_audio"], tasks.total()) == (4, 4, 16)


def test_a_mixed_set_is_validated_on_what_each_clip_has(tmp_path: Path) -> None:
    shards = str(make_mixed(tmp_path, 4, 2, 2))
    module = make_module(tasks={"single": PAPER_TASKS["single"]})
    data = ShardData(shards, GRID, make_codec(), batch_size=2, val_shards=shards)
    fit(module, data, tmp_path, max_steps=1, val_check_interval=1, num_sanity_val_steps=0)
    told = {name for name in module.validated if "/t" not in name}  # over all times
    assert told == {"single/video", "single/audio", "single_video/video", "single_audio/audio"}
