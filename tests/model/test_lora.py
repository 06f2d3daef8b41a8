"""Adapters and frozen backbones: what trains, what stays, and what is saved; and a stream that trains alone."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer
from torch import nn

from ccl.callbacks import EMA, LossLog, SaveCheckpoint, TaskRouter
from ccl.grid import Grid
from ccl.interaction import NoInteraction, Site
from ccl.model import DualStreamTransformer, WanStream
from ccl.model.adapter import AdaptedLinear, LoRA, adapted, is_adapter, merge
from ccl.model.keys import belongs
from ccl.storage.checkpoint import AtomicCheckpointIO
from ccl.storage.model_folder import build, load_model
from ccl.storage.run import RunFolder
from ccl.tasks import Task, Term
from ccl.training.module import JointDiffusion
from ccl.training.optimizer import OptimizerConfig
from ccl.types import ALONE, AV, CLOSED
from helpers.fakes import (
    CHANNELS,
    GRID,
    FakeData,
    interaction,
    make_batch,
    make_codec,
    make_module,
    make_net,
    make_text,
)
from helpers.tiny import awake, tiny_config
from helpers.trainings import assert_same_losses, train_all

LORA = LoRA(rank=2, alpha=3.0)


def forward(net: Any) -> AV[Any]:
    g = torch.Generator().manual_seed(0)
    z = make_batch(0, range(2)).latents
    return net(
        z, AV(torch.rand(2, generator=g), torch.rand(2, generator=g)), torch.randn(2, 6, 8, generator=g), grid=GRID
    ).velocity


def backward(module: JointDiffusion, task: str = "joint") -> None:
    batch = make_batch(0, range(2))
    (rows,), _ = module.losses(batch, module.tasks[task], index=0)
    (rows.video.mean() + rows.audio.mean()).backward()


def names(module: JointDiffusion, kind: Any) -> set[str]:
    return {name for name, p in module.named_parameters() if kind(name, p)}


@pytest.mark.parametrize("kwargs", [{"freeze": "backbones"}, {"lora": LORA}], ids=["frozen", "lora"])
def test_only_cross_modal_parameters_and_adapters_learn(kwargs: dict[str, Any]) -> None:
    module = make_module(**kwargs)
    net, _ = module.built
    cross = {id(p) for p in net.cross_modal_parameters()}
    wanted = names(module, lambda name, p: id(p) in cross or is_adapter(name))
    assert names(module, lambda _, p: p.requires_grad) == wanted
    assert any(map(is_adapter, wanted)) == ("lora" in kwargs)
    awake(module)
    backward(module)
    assert names(module, lambda _, p: p.grad is not None) == wanted
    for _, p in module.named_parameters():
        assert p.grad is None or p.grad.abs().sum() > 0


def test_text_alone_can_be_left_as_it_is() -> None:
    module = make_module(freeze="text")
    module.keeps_average = True
    net, text = module.built
    assert all(p.requires_grad for p in net.parameters())
    assert not any(p.requires_grad for p in text.parameters())
    assert "text" not in module.ema
    backward(module)
    assert names(module, lambda name, p: name.startswith("text.") and p.grad is not None) == set()


@pytest.mark.parametrize("task", ["single", "a2v", "v2a", "joint"])
def test_every_task_gives_every_trained_parameter_a_gradient(task: str) -> None:
    """Else DDP would wait for ever."""
    module = make_module(lora=LORA)
    module.built[0].checkpointing = True
    backward(module, task)
    assert names(module, lambda _, p: p.requires_grad and p.grad is None) == set()


def test_step_0_is_what_it_is_without_adapters() -> None:
    plain, with_lora = make_module().built[0], make_module(lora=LORA).built[0]
    own = {name: p for name, p in with_lora.state_dict().items() if not is_adapter(name)}
    assert own.keys() == plain.state_dict().keys()
    assert all(torch.equal(p, own[name]) for name, p in plain.state_dict().items())
    awake(plain)
    with_lora.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(3, 16)
    assert torch.equal(*(net.blocks[0].video.ffn(x) for net in (plain, with_lora)))
    for a, b in zip(forward(plain), forward(with_lora), strict=True):  # a CPU's products round by where tensors lie
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_adapters_start_alike_under_one_seed_and_differ_under_another() -> None:
    def drawn(seed: int) -> dict[str, Any]:
        torch.manual_seed(torch.seed())  # whatever was drawn before
        return {k: v for k, v in make_module(lora=LORA, seed=seed).built[0].state_dict().items() if is_adapter(k)}

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_merged_weights_compute_what_the_adapted_ones_did() -> None:
    net = LORA.adapt(make_net())
    awake(net)
    layers = list(adapted(net.state_dict()))
    assert len(layers) == 2 * 2 * 10  # layers x streams x (4 + 4 + 2)
    merged = make_net()
    merged.load_state_dict(merge(net.state_dict(), LORA.scale))
    for a, b in zip(forward(net), forward(merged), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(forward(make_net()), forward(net), strict=True):
        assert not torch.allclose(a, b)


def test_parts_choose_the_layers() -> None:
    net = LoRA(rank=1, parts=("ffn",)).adapt(make_net())
    assert {name.split(".")[-2] for name in adapted(net.state_dict())} == {"ffn"}
    for wrong in ((), ("self_atn",)):
        with pytest.raises(ValueError, match=r"lora\.parts are"):
            LoRA(parts=wrong)
    with pytest.raises(ValueError, match=r"lora\.rank is 0"):
        LoRA(rank=0)


def test_an_adapted_layer_is_pefts() -> None:
    peft = pytest.importorskip("peft")
    base = make_net().blocks[0].video
    awake(base)
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    for layer in [layer for layer in ours.modules() if isinstance(layer, nn.Linear)]:
        AdaptedLinear.take_over(layer, LORA.rank, LORA.scale)
    config = peft.LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=["q", "k", "v", "o", "ffn.0", "ffn.2"])
    theirs = peft.inject_adapter_in_model(config, theirs)
    awake(ours)
    own = dict(ours.named_parameters())
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            ending = {"lora_A.default.weight": "lora_a", "lora_B.default.weight": "lora_b"}
            for long, short in ending.items():
                name = name.replace(long, short)
            p.copy_(own[name.replace("base_layer.", "")])
    x = torch.randn(2, 3, 16)
    for name in ("q", "k", "v", "o"):
        a, b = (getattr(block.self_attn, name)(x) for block in (ours, theirs))
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.ffn(x), theirs.ffn(x), rtol=1e-6, atol=1e-6)


def test_the_optimizer_holds_what_trains_in_its_groups(tmp_path: Path) -> None:
    module = make_module(lora=LORA)
    module._trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    net, _ = module.built
    groups = {group["name"]: group for group in module.configure_optimizers()["optimizer"].param_groups}
    adapters = {id(p) for name, p in net.named_parameters() if is_adapter(name)}
    cross = {id(p) for p in net.cross_modal_parameters()}
    assert set(groups) == {"streams", "cross", "cross_undecayed"}
    assert {id(p) for p in groups["streams"]["params"]} == adapters
    assert {id(p) for name in ("cross", "cross_undecayed") for p in groups[name]["params"]} == cross


# Runs


def train(folder: Path, module: JointDiffusion, steps: int, start: str | None = None, extra: Any = None) -> None:
    run = RunFolder(folder.name, folder.parent)
    path = run.open({"model": {"lora": {"rank": 2, "alpha": 3.0}}, **(extra or {})}, start)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        callbacks=[TaskRouter(), EMA(0.5), LossLog(), SaveCheckpoint(every=2, keep=None)],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.ckpt_path = path
    trainer.fit(module, datamodule=FakeData(2), weights_only=True)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_a_run_with_adapters_resumes_to_the_last_bit_and_leaves_the_backbones(tmp_path: Path) -> None:
    make = partial(make_module, lora=LORA)
    train(tmp_path / "whole", make(), 4)
    train(tmp_path / "cut", make(), 2)
    train(tmp_path / "cut", make(), 4, "last")
    states = [
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

    before = make().built[0].state_dict()
    frozen = [name for name in before if not is_adapter(name) and ".interaction." not in name]
    assert all(torch.equal(before[name], states[0][f"net.{name}"]) for name in frozen)
    moved = [name for name in before if is_adapter(name) and not torch.equal(before[name], states[0][f"net.{name}"])]
    assert moved


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_adapters_learn_the_same_on_two_processes_sharded_or_not(tmp_path: Path) -> None:
    common = {"lora": True, "steps": 4, "save": 100}
    two = common | {"size": 2, "ranks": 2}
    runs: list[dict[str, Any]] = [
        common | {"folder": str(tmp_path / "one"), "size": 4},
        two | {"folder": str(tmp_path / "ddp"), "strategy": "ddp"},
        two | {"folder": str(tmp_path / "fsdp"), "strategy": "fsdp", "preview": True},
    ]
    train_all(tmp_path, *([run] for run in runs))
    for other in ("ddp", "fsdp"):
        assert_same_losses(tmp_path / other, tmp_path / "one")
    assert (tmp_path / "fsdp/previews/step_000004/0.mp4").is_file()  # sampled from gathered weights


def test_a_run_with_adapters_becomes_a_model_without(tmp_path: Path) -> None:
    config = tiny_config()
    net, text = build(config, "tiny").net, build(config, "tiny").text
    LORA.adapt(net)
    awake(net), awake(text, 1)
    state = {f"{n}.{k}": v for n, part in (("net", net), ("text", text)) for k, v in part.state_dict().items()}
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "checkpoints/step=000003.ckpt")
    lora = {"rank": LORA.rank, "alpha": LORA.alpha, "parts": list(LORA.parts)}
    model = {"net": config["net"], "text": config["text"], "lora": lora}
    run = {"name": "tiny", "model": model, "codec": config["codec"], "grid": config["grid"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(run))

    loaded = load_model(tmp_path).net
    x = AV(torch.randn(1, 16, 3, 2, 2), torch.randn(1, 40, 11))
    args = (x, AV(torch.tensor([0.3]), torch.tensor([0.6])), torch.randn(1, 16, 16))
    for a, b in zip(
        net(*args, grid=Grid(9, 25.0, 16, 16)).velocity, loaded(*args, grid=Grid(9, 25.0, 16, 16)).velocity, strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# A stream alone


def audio_net() -> DualStreamTransformer:
    return DualStreamTransformer(
        video=None,
        audio=WanStream(width=8, ffn=16, channels=CHANNELS.audio),
        layers=2,
        head_dim=8,
        text_dim=8,
        interaction=interaction,
        freq_dim=16,
    )


def audio_module() -> JointDiffusion:
    optimizer = OptimizerConfig(lr=1e-2)
    tasks = {"audio": Task(1.0, (Term(CLOSED),))}
    return JointDiffusion(audio_net, make_text, make_codec(), GRID, tasks=tasks, optimizer=optimizer)


def test_a_network_of_one_stream_is_the_two_streams_network_without_the_other() -> None:
    both, audio = make_net(), audio_net()
    awake(both)
    own = {name: p for name, p in both.state_dict().items() if belongs(name, "audio")}
    audio.load_state_dict(own)
    z, g = make_batch(0, range(2)).latents.audio, torch.Generator().manual_seed(0)
    args = (AV(None, z), AV(None, torch.rand(2, generator=g)), torch.randn(2, 6, 8, generator=g))
    alone = audio(*args, grid=GRID, view=ALONE).velocity
    for block in both.blocks:
        block.interaction = NoInteraction(Site(16, 8, AV(8, 8)))
    assert alone.video is None
    assert torch.equal(alone.audio, both(*args, grid=GRID, view=ALONE).velocity.audio)


def test_what_a_network_has_not_is_told_in_words() -> None:
    z = make_batch(0, range(1)).latents
    t = AV(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="video latents are given, but this network has no video stream"):
        audio_net()(z, t, torch.zeros(1, 6, 8), grid=GRID)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_the_audio_stream_trains_alone_from_batches_of_both(tmp_path: Path) -> None:
    module = audio_module()
    train(tmp_path / "run", module, 2)
    rows = [json.loads(line) for line in (tmp_path / "run/losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows[:2]] == [1, 2]
    assert all(row["loss"] == row["audio"] and "video" not in row for row in rows[:2])
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(belongs(name.removeprefix("net."), "audio") for name in saved if name.startswith("net."))


def test_a_stream_alone_draws_what_it_draws_beside_the_other() -> None:
    """The same clips get the same noise and times in both stages."""
    batch = make_batch(0, range(2))
    both, alone = make_module(), audio_module()
    assert torch.equal(alone.encode(batch).audio, batch.latents.audio)
    chance = alone.draw(batch.prompt, alone.encode(batch), index=3)
    assert chance.noise.video is None
    other = both.draw(batch.prompt, both.encode(batch), index=3)
    assert torch.equal(chance.time.audio, other.time.audio)
