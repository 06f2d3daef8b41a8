"""AdamW's moments in 8 bits: what they take, how far a training goes from one with whole moments, and resuming.

torchao's step is compiled for each shape of a parameter, which takes a CPU long: here it runs as it is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccl import planning
from ccl.callbacks import SaveCheckpoint, TaskRouter
from ccl.model import WanStream
from ccl.storage.checkpoint import AtomicCheckpointIO, load_checkpoint
from ccl.training.module import JointDiffusion
from ccl.training.optimizer import OptimizerConfig, adamw_8bit, read, written
from helpers.fakes import CHANNELS, GRID, fit, make_codec, make_net, make_shards, make_text, shard_data
from helpers.trainings import differences

NARROW = OptimizerConfig(lr=1e-2, lr_cross=1e-2, warmup_steps=2, bits=8)


@pytest.fixture
def torchao() -> Iterator[None]:
    pytest.importorskip("torchao", reason="the [lean] extra is not installed")
    with torch.compiler.set_stance("force_eager"):
        yield


def optimized(net: nn.Module, config: OptimizerConfig, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """The optimizer and its schedule after some steps towards a fixed point."""
    built = config.build([net], [], max_steps=steps)
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        (net(x) - x.flip(1)).square().mean().backward()
        optimizer.step()
        schedule.step()
    return optimizer, schedule


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 64)


def tensors_of(value: Any) -> list[Tensor]:
    if hasattr(value, "codes"):
        return [value.codes, value.scale]
    return [value]


def test_without_torchao_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ValueError, match=r"optimizer\.bits is 8, which needs torchao: pip install 'ccl\[lean\]'"):
        NARROW.build([linear()], [], max_steps=1)


def test_steps_go_where_whole_moments_take_them(torchao: None) -> None:
    nets = {bits: linear() for bits in (None, 8)}
    begun = nets[None].weight.detach().clone()
    for bits, net in nets.items():
        optimized(net, OptimizerConfig(lr=1e-3, weight_decay=0.01, bits=bits), 40)
    gone = (nets[None].weight - begun).norm()
    assert gone > 0.3
    assert (nets[8].weight - nets[None].weight).norm() < 0.1 * gone


def test_the_first_step_is_that_of_whole_moments(torchao: None) -> None:
    """The moments are rounded after they are used."""
    nets = {bits: linear() for bits in (None, 8)}
    for bits, net in nets.items():
        optimized(net, OptimizerConfig(lr=1e-3, warmup_steps=4, bits=bits), 1)
    torch.testing.assert_close(nets[8].weight, nets[None].weight, rtol=1e-6, atol=1e-7)


def test_a_plan_counts_the_bytes_that_they_take(torchao: None) -> None:
    net = nn.ModuleDict({"large": nn.Linear(64, 64), "odd": nn.Linear(65, 65)})
    optimizer = OptimizerConfig(bits=8).build([net], [], max_steps=1)["optimizer"]
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    taken = sum(x.nbytes for state in optimizer.state.values() for value in state.values() for x in tensors_of(value))
    assert planning.states(planning.parameters(net), ema=False, bits=8).optimizer == taken
    whole = sum(8 * p.numel() + 4 for p in net.parameters())
    assert planning.states(planning.parameters(net), ema=False).optimizer == whole


def test_a_checkpoints_state_is_plain_tensors_and_comes_back_the_same(torchao: None, tmp_path: Path) -> None:
    optimizer, _ = optimized(linear(), OptimizerConfig(bits=8), 3)
    torch.save(written(optimizer.state_dict()), tmp_path / "state")
    again, _ = optimized(linear(), OptimizerConfig(bits=8), 1)
    again.load_state_dict(read(torch.load(tmp_path / "state", weights_only=True)))
    for one, other in zip(optimizer.state.values(), again.state.values(), strict=True):
        for key in one:
            pairs = zip(tensors_of(one[key]), tensors_of(other[key]), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    assert isinstance(again.param_groups[0]["lr"], Tensor)


def test_another_runs_rate_is_imposed_on_a_rate_that_is_a_tensor(torchao: None) -> None:
    optimizer, schedule = optimized(linear(), OptimizerConfig(lr=1e-3, bits=8), 3)
    OptimizerConfig(lr=5e-3, warmup_steps=6, bits=8).impose(optimizer, schedule)
    assert isinstance(optimizer.param_groups[0]["lr"], Tensor)
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(5e-3)  # its schedule is the optimizer's own


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers", "ignore:Your `IterableDataset`")
def test_a_resumed_run_ends_as_one_that_was_not_stopped(torchao: None, tmp_path: Path, trained: Any) -> None:
    whole = trained(module(), tmp_path / "whole", 4)
    trained(module(), tmp_path / "two", 2)
    first = tmp_path / "two" / "checkpoints" / "step=000002.ckpt"
    kept = load_checkpoint(first)["optimizer_states"]
    assert all(type(x) is Tensor for x in leaves(kept)) and any(x.dtype == torch.uint8 for x in leaves(kept))
    parts = trained(module(), tmp_path / "two", 4, ckpt_path=str(first))
    a, b = (load_checkpoint(folder / "checkpoints" / "step=000004.ckpt") for folder in (whole, parts))
    assert differences(a["state_dict"], b["state_dict"]) == []
    assert differences(a["optimizer_states"], b["optimizer_states"]) == []


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, Tensor):
        yield value


def module() -> JointDiffusion:
    """Of which some matrices are large enough for 8 bits."""
    net = partial(make_net, layers=1, video=WanStream(width=64, ffn=64, channels=CHANNELS.video))
    return JointDiffusion(net, make_text, make_codec(), GRID, optimizer=NARROW)


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    shards = make_shards(tmp_path)

    def run(module: JointDiffusion, folder: Path, steps: int, **more: Any) -> Path:
        how: dict[str, Any] = {"callbacks": [TaskRouter(), SaveCheckpoint(every=2, keep=None)], "max_steps": steps}
        how |= {"plugins": [AtomicCheckpointIO()], "enable_checkpointing": True}
        fit(module, shard_data(shards), folder, **how, **more)
        return folder

    return run


def test_torchao_is_what_is_asked_for(torchao: None) -> None:
    assert adamw_8bit().__name__ == "AdamW8bit"
