"""Frozen matrices in 8 bits: how far they are off, what stays, gradients, and a run with adapters on them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ccl import planning
from ccl.callbacks import SaveCheckpoint, TaskRouter
from ccl.inspection.quantized import errors, figures_of, lines
from ccl.model.adapter import LoRA, is_adapter
from ccl.model.quantized import is_scale, quantize, quantize_linear, rounded, whole
from ccl.nn.layers import Linear
from ccl.storage.checkpoint import AtomicCheckpointIO
from ccl.storage.model_folder import load_model
from ccl.storage.run import RunFolder
from ccl.training.module import JointDiffusion
from helpers.fakes import GRID, FakeData, fit, make_batch, make_module, make_net, make_text, model_config
from helpers.tiny import awake
from helpers.trainings import differences

LORA = LoRA(rank=2, alpha=3.0)
HOW = ["int8", "float8"]


def forward(net: Any) -> Any:
    g = torch.Generator().manual_seed(0)
    z = make_batch(0, range(2)).latents
    t = z.map(lambda x: torch.rand(len(x), generator=g))
    return net(z, t, torch.randn(2, 6, 8, generator=g), grid=GRID).velocity


@pytest.mark.parametrize("how", HOW)
def test_a_weight_is_off_by_half_a_step_at_most(how: Any) -> None:
    weight = torch.randn(32, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 2, 32)[:, None]
    narrow, scale = rounded(weight, how)
    assert narrow.element_size() == 1 and torch.equal(scale, scale.bfloat16().float())
    off = (narrow.float() * scale - weight).abs()
    if how == "int8":
        assert (off <= 0.5 * scale * 1.01).all()
    else:  # three bits behind the first one; below the smallest exponent the step is even, 2^-9
        assert (off <= torch.maximum(weight.abs() / 16, scale * 2.0**-10) * 1.01).all()


def test_rows_of_zeros_stay_zeros_and_rounding_again_changes_nothing() -> None:
    weight = torch.randn(4, 64)
    weight[1] = 0
    for how in HOW:
        narrow, scale = rounded(weight, how)  # type: ignore[arg-type]
        assert (narrow[1].float() == 0).all()
        again, same = rounded(narrow.float() * scale, how)  # type: ignore[arg-type]
        assert torch.equal(narrow.float(), again.float()) and torch.equal(scale[[0, 2, 3]], same[[0, 2, 3]])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
def test_a_layer_computes_with_the_numbers_that_it_stands_for(how: Any, half: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(48, 24, init="default"), torch.randn(3, 5, 48, requires_grad=True)
    nn.init.normal_(layer.bias)
    quantize_linear(layer, how)
    wide = layer.weight.float() * layer.weight_scale
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = layer(x)
        true = F.linear(x, wide, layer.bias)
    assert out.dtype == true.dtype
    near: dict[str, float] = {"rtol": 2e-2, "atol": 5e-2} if half else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(out, true, **near)
    asked = torch.randn_like(out)
    (own,) = torch.autograd.grad(out, x, asked)
    (theirs,) = torch.autograd.grad(true, x, asked)
    assert own.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(own, theirs, **near)


def test_the_backward_pass_keeps_no_wide_copy_of_a_weight() -> None:
    layer, x = Linear(64, 64, init="default"), torch.randn(2, 64, requires_grad=True)
    quantize_linear(layer, "int8")
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        layer(x).sum()
    assert not any(x.is_floating_point() and x.numel() == 64 * 64 for x in kept)
    assert any(x.dtype == torch.int8 for x in kept)


def test_the_video_streams_matrices_alone_are_kept_in_8_bits() -> None:
    net = make_net()
    awake(net)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    quantize(net, "int8")
    state = net.state_dict()
    narrow = {name for name, x in state.items() if x.dtype == torch.int8}
    layers = {f"{part}.{x}" for part in ("self_attn", "cross_attn") for x in "qkvo"} | {"ffn.0", "ffn.2"}
    assert narrow == {f"blocks.{i}.video.{layer}.weight" for i in range(2) for layer in layers}
    assert state.keys() == before.keys() | {f"{name}_scale" for name in narrow}
    assert all(torch.equal(state[name], x) for name, x in before.items() if name not in narrow)


@pytest.mark.parametrize("how", HOW)
def test_a_network_computes_as_one_of_the_numbers_that_its_checkpoint_stands_for(how: Any) -> None:
    net = LORA.adapt(make_net())
    awake(net)
    other = copy.deepcopy(net)
    quantize(net, how)
    other.load_state_dict(whole(net.state_dict()))
    for a, b in zip(forward(net), forward(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_network_without_the_stream_is_refused() -> None:
    net = make_net()
    for block in net.blocks:
        block.video = None
    with pytest.raises(ValueError, match="the network has no video stream whose matrices could be kept in int8"):
        quantize(net, "int8")


@pytest.mark.parametrize("kwargs", [{}, {"freeze": "text"}])
def test_weights_that_train_are_not_kept_in_8_bits(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"here they train; give model\.lora or model\.freeze backbones"):
        make_module(quantize="int8", **kwargs)


def test_an_average_is_refused() -> None:
    module = make_module(quantize="int8", lora=LORA)
    module.keeps_average = True
    with pytest.raises(ValueError, match=r"model\.quantize int8 goes with no EMA"):
        module.configure_model()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_a_run_trains_adapters_alone_resumes_and_becomes_a_model(tmp_path: Path, how: Any) -> None:
    lora = {"rank": 2, "alpha": 3.0, "parts": ["self_attn", "ffn"]}
    config = model_config()
    config["model"] |= {"lora": lora, "quantize": how, "freeze": None}
    run = RunFolder("run", tmp_path)
    run.open({**config, "seed_everything": 0}, None)

    def module() -> JointDiffusion:
        return make_module(lora=LoRA(2, 3.0, ("self_attn", "ffn")), quantize=how)

    options: dict[str, Any] = {"plugins": [AtomicCheckpointIO()], "enable_checkpointing": True}
    callbacks = [TaskRouter(), SaveCheckpoint(every=2)]
    begun = module()
    begun.configure_model()
    before = {name: x.detach().clone() for name, x in begun.net.state_dict().items()}
    fit(begun, FakeData(), run.path, callbacks=callbacks, max_steps=2, **options)
    after = begun.net.state_dict()
    moved = {name for name, x in after.items() if not torch.equal(x.float(), before[name].float())}
    frozen = {name for name in after if not is_adapter(name) and ".interaction." not in name}
    assert not moved & frozen and {name for name in moved if is_adapter(name)}
    last = run.path / "checkpoints" / "last.ckpt"
    resumed = module()
    again: dict[str, Any] = {"plugins": [AtomicCheckpointIO()], "ckpt_path": last}
    fit(resumed, FakeData(), run.path, callbacks=[TaskRouter()], max_steps=2, **again)
    assert differences(resumed.net.state_dict(), dict(after)) == []
    model = load_model(run.path, trust=["helpers"])
    assert not [name for name, _ in model.net.named_parameters() if is_adapter(name) or is_scale(name)]
    for a, b in zip(forward(model.net), forward(begun.net), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_plan_counts_their_bytes_and_the_same_flops() -> None:
    def made(how: Any) -> Any:
        net = LORA.adapt(make_net())
        net.requires_grad_(False)
        for name, p in net.named_parameters():
            p.requires_grad_(is_adapter(name) or ".interaction." in name)
        return net if how is None else quantize(net, how)

    plain, narrow = made(None), made("int8")
    memory = planning.states(planning.parameters(narrow), ema=False)
    assert memory.weights == sum(p.nbytes for p in narrow.parameters())
    assert memory.gradients == planning.states(planning.parameters(plain), ema=False).gradients
    tables = [planning.forward_flops(planning.shorten(net.to("meta")), GRID, text=6) for net in (plain, narrow)]
    assert tables[0] == tables[1]


def test_sound_is_moved_by_what_the_pictures_lose_alone_and_far_more_where_its_own_matrices_are_rounded() -> None:
    net, z = make_net(), make_batch(0, range(2)).latents
    awake(net)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    found = errors(net, make_text(), z, ["a", "b"], GRID, time=0.5)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert {len(path) for path in found.values()} == {3}  # blocks, and the velocities
    for how in HOW:
        alone, both = found[how], found[f"{how}, sound too"]
        assert both[0].audio > 3 * alone[0].audio  # what crosses over in one block
        assert alone[0].video == pytest.approx(both[0].video, rel=0.3)
    assert 0 < found["int8"][-1].video < found["float8"][-1].video
    assert len(list(lines(figures_of(found, 0.5, 2)))) == 2 * (2 + 3)
