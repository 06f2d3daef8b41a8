"""A task a clip in place of a task a step: who draws it, and what a step counts and tells."""

from __future__ import annotations

import json
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from ccl.callbacks import LossLog, TaskRouter
from ccl.tasks import PAPER_TASKS, Given, Task, Term
from ccl.training.module import JointDiffusion, TrainingError
from ccl.types import OPEN, Route
from helpers.fakes import FakeData, fit, make_batch, make_module
from helpers.tiny import awake

DRIVEN = Term(Route(a2v=True, v2a=False), {"audio": Given("all", time=0.04)}, weight={"video": 0.5}, name="driven")
BOTH = Task(1.0, (Term(OPEN, shared_time=True, name="both"), DRIVEN))  # two terms
TASKS = {name: Task(1.0, task.terms) for name, task in PAPER_TASKS.items()} | {"two": BOTH}
SEED = 2  # of which the first eight clips have every task


def routed(
    module: JointDiffusion, size: int, *, batch: int = 0, rank: int = 0, ranks: int = 1, accumulate: int = 1
) -> list[str]:
    """The tasks of the clips of one process's batch."""
    module.router, module.batches = TaskRouter(per="sample"), batch
    strategy = SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": ranks})
    module._trainer = SimpleNamespace(accumulate_grad_batches=accumulate, strategy=strategy)
    rows = module._routed(module.tasks, size)
    return [next(name for name, own in rows.items() if row in own) for row in range(size)]


def train(folder: Path, per: Literal["batch", "sample"], *, tasks: dict[str, Task] = TASKS) -> JointDiffusion:
    module = make_module(tasks=tasks, seed=SEED)
    awake(module.built[0])
    fit(module, FakeData(8), folder, callbacks=[TaskRouter(per), LossLog()], max_steps=1)
    return module


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def test_a_clip_has_the_same_task_whichever_process_and_batch_of_its_step_has_it() -> None:
    module = make_module()
    for step in range(4):
        whole = routed(module, 12, batch=step)
        assert len(set(whole)) > 1 and routed(module, 12, batch=step) == whole
        ranks = [routed(module, 6, batch=step, rank=rank, ranks=2) for rank in range(2)]
        assert list(chain(*ranks)) == whole
        apart = [
            routed(module, 3, batch=2 * step + part, rank=rank, ranks=2, accumulate=2)
            for part in range(2)
            for rank in range(2)
        ]
        assert list(chain(*apart)) == whole
    assert all(a != b for a, b in pairwise(routed(module, 12, batch=step) for step in range(4)))


@pytest.mark.parametrize("kind", ["cca", "gate"])
def test_a_step_counts_the_mean_over_clips_of_what_each_ones_task_counts(kind: str) -> None:
    module = make_module(kind, tasks=TASKS, seed=SEED)
    awake(module.built[0])
    names = routed(module, 8)
    assert set(names) == TASKS.keys()
    module._trainer = trainer = SimpleNamespace(accumulate_grad_batches=1, world_size=1, global_rank=0, global_step=0)
    trainer.strategy = SimpleNamespace(reduce=lambda x, reduce_op: x)
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    loss = module.training_step(make_batch(0, range(8)), 0)["loss"]
    loss.backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    # Each clip alone, as the only one of its process.
    each = []
    for place, name in enumerate(names):
        alone = module.losses(make_batch(0, range(place, place + 1)), TASKS[name], index=0, rank=place)
        each.append(module.weighed(alone, TASKS[name])[0])
    naive = torch.stack(each).mean()
    naive.backward()
    torch.testing.assert_close(loss, naive, rtol=1e-6, atol=0)
    for name, p in module.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6)


def test_clips_that_all_draw_one_task_train_to_the_last_bit_as_a_batch_that_draws_it(tmp_path: Path) -> None:
    tasks = {name: Task(float(name == "two"), task.terms) for name, task in TASKS.items()}
    batch, sample = (train(tmp_path / per, per, tasks=tasks) for per in ("batch", "sample"))
    assert told(tmp_path / "batch") == told(tmp_path / "sample")
    for a, b in zip(batch.parameters(), sample.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_log_of_a_mixed_step_tells_each_tasks_losses(tmp_path: Path) -> None:
    module = train(tmp_path, "sample")
    (row,), counts = told(tmp_path), module.router.counts  # type: ignore[attr-defined]
    names = routed(module, 8)
    assert row.pop("task") == "mixed" and counts == {name: names.count(name) / 8 for name in TASKS}
    weights = {"two": {"both/video": 1, "both/audio": 1, "driven/video": 0.5}, "a2v": {"a2v/video": 1}}
    weights["v2a"] = {"v2a/audio": 1}
    weights |= {name: {f"{name}/video": 1, f"{name}/audio": 1} for name in ("single", "joint")}
    assert row.keys() == {"batch", "step", "loss", *(f"{name}/loss" for name in TASKS), *chain(*weights.values())}
    for name, each in weights.items():
        assert row[f"{name}/loss"] == pytest.approx(sum(weight * row[key] for key, weight in each.items()))
    assert row["loss"] == pytest.approx(sum(row[f"{name}/loss"] for name in names) / 8)


def test_a_mixed_step_that_is_not_finite_names_its_tasks_and_the_clip(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"task .*joint and two, from clips clip-0-1; nothing was updated"):
        fit(
            make_module(tasks=TASKS, seed=SEED),
            FakeData(8, bad_from=0),
            tmp_path,
            callbacks=[TaskRouter("sample")],
            max_steps=1,
        )
