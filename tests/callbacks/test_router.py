"""A step's task depends on the seed and the step alone, a clip's on its place as well."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ccl.callbacks import TaskRouter
from ccl.tasks import PAPER_TASKS, draw
from helpers.fakes import FakeData, fit, make_batch, make_module


def routed(steps: range, *, seed: int = 0) -> list[str]:
    router = TaskRouter()
    names = [router.route(PAPER_TASKS, seed=seed, step=step, place=0) for step in steps]
    module = SimpleNamespace(log_dict=lambda *_, **__: None)
    for name in names:
        router.on_train_batch_end(None, module, {"shares": {name: 1.0}}, make_batch(0, range(1)), 0)
    assert router.counts == Counter(names)
    return names


def test_a_resumed_router_goes_on_as_a_whole_one() -> None:
    assert routed(range(50))[20:] == routed(range(20, 50))


def test_another_seed_routes_otherwise() -> None:
    assert routed(range(50), seed=0) != routed(range(50), seed=1)


def test_batches_of_one_step_share_their_task(tmp_path: Path) -> None:
    module = make_module()
    asked: list[int] = []

    class Asked(TaskRouter):
        def route(self, tasks: Any, *, seed: int, step: int, place: int) -> str:
            asked.append(step)
            return super().route(tasks, seed=seed, step=step, place=place)

    fit(module, FakeData(1), tmp_path, callbacks=[Asked()], max_steps=2, accumulate_grad_batches=3)
    assert asked == [0, 0, 0, 1, 1, 1]


def test_tasks_come_as_often_as_their_rows_say() -> None:
    counts = Counter(draw(PAPER_TASKS, 0, step) for step in range(4000))
    for name, task in PAPER_TASKS.items():
        assert counts[name] / 4000 == pytest.approx(task.prob, abs=0.03)


def test_tasks_of_clips_come_as_often() -> None:
    router = TaskRouter(per="sample")
    places = [(step, place) for step in range(250) for place in range(16)]
    counts = Counter(router.route(PAPER_TASKS, seed=0, step=step, place=place) for step, place in places)
    for name, task in PAPER_TASKS.items():
        assert counts[name] / 4000 == pytest.approx(task.prob, abs=0.03)


def test_the_first_tasks_of_seed_zero_are_what_they_were() -> None:
    # Golden: a change here breaks the resume of every run that is under way.
    assert routed(range(8)) == ["v2a", "joint", "joint", "single", "joint", "joint", "a2v", "a2v"]


def test_the_first_clips_of_seed_zero_have_the_tasks_that_they_had() -> None:
    # Golden, as above.
    router = TaskRouter(per="sample")
    names = [router.route(PAPER_TASKS, seed=0, step=0, place=place) for place in range(8)]
    assert names == ["joint", "joint", "joint", "a2v", "v2a", "joint", "a2v", "joint"]


def test_counts_outlive_a_resume() -> None:
    router = TaskRouter()
    router.counts = {"joint": 3}
    other = TaskRouter()
    other.load_state_dict(router.state_dict())
    assert other.counts == {"joint": 3}
