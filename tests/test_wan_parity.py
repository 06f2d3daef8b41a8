"""The video stream is Wan2.1's: diffusers' WanTransformer3DModel with the same weights is the oracle."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel

from ccl.grid import Grid
from ccl.interaction import NoInteraction
from ccl.model import DualStreamTransformer, StreamConfig
from ccl.model.load import diffusers_to_wan, load_stream, load_wan, ours_to_wan, wan_to_ours
from ccl.types import AV, CLOSED

GRID = Grid(frames=13, height=64, width=48)  # 4 x 4 x 3 tokens


def wan(head_dim: int = 32) -> WanTransformer3DModel:
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=head_dim,
        text_dim=24,
        ffn_dim=96,
        num_layers=2,
        freq_dim=64,
    )
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.1)
    return model.eval()


def ours(head_dim: int = 32) -> DualStreamTransformer:
    config = StreamConfig(2 * head_dim, 96, 16)
    return DualStreamTransformer(
        video=config,
        audio=StreamConfig(head_dim, 32, 4),
        layers=2,
        head_dim=head_dim,
        text_dim=24,
        interaction=NoInteraction,
        freq_dim=64,
    ).eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    text = torch.randn(2, 10, 24)
    text[:, 7:] = 0  # padding, which is attended to
    return torch.randn(2, 16, GRID.t_v, GRID.latent_height, GRID.latent_width), text


def alone(net: DualStreamTransformer, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return net(AV(x, None), AV(t, None), text, grid=GRID, route=CLOSED).video


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("head_dim", [16, 32, 128])
@torch.no_grad()
def test_video_stream_equals_diffusers_wan(head_dim: int) -> None:
    theirs, net = wan(head_dim), ours(head_dim)
    load_stream(net, theirs.state_dict())
    x, text = inputs()
    t = torch.tensor([0.25, 0.75])
    expected = theirs(x, 1000 * t, text).sample
    assert relative(alone(net, x, t, text), expected) < 1e-5


@torch.no_grad()
def test_video_stream_with_a_time_for_each_frame_equals_diffusers_wan() -> None:
    theirs, net = wan(), ours()
    load_stream(net, theirs.state_dict())
    x, text = inputs()
    t = torch.rand(2, GRID.t_v)
    t[:, 0] = 0  # a clean first frame
    per_token = (1000 * t).repeat_interleave(GRID.h * GRID.w, 1)
    expected = theirs(x, per_token, text).sample
    assert relative(alone(net, x, t, text), expected) < 1e-5


def test_gradients_equal_diffusers_wan() -> None:
    theirs, net = wan(), ours()
    load_stream(net, theirs.state_dict())
    x, text = inputs()
    t = torch.tensor([0.25, 0.75])
    theirs(x, 1000 * t, text).sample.square().mean().backward()
    alone(net, x, t, text).square().mean().backward()
    parameters = dict(net.named_parameters())
    for key, p in theirs.named_parameters():
        mine = parameters[wan_to_ours(diffusers_to_wan(key))]
        assert p.grad is not None and mine.grad is not None
        torch.testing.assert_close(mine.grad, p.grad, rtol=1e-3, atol=1e-6 + 1e-4 * float(p.grad.abs().max()), msg=key)


def test_key_maps_are_inverse() -> None:
    for key in wan().state_dict():
        original = diffusers_to_wan(key)
        assert ours_to_wan(wan_to_ours(original)) == original
        assert ours_to_wan(wan_to_ours(original, "audio")) == original


def test_a_checkpoint_that_does_not_fit_is_refused_by_name() -> None:
    state, net = wan().state_dict(), ours()
    with pytest.raises(ValueError, match=r"lacks 1 keys, the first is head\.head\.bias"):
        load_stream(net, {k: v for k, v in state.items() if k != "proj_out.bias"})
    with pytest.raises(ValueError, match=r"1 keys too many, the first is head\.spare"):
        load_stream(net, state | {"head.spare": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"text_embedding\.0\.weight has shape \(1, 1\) in the checkpoint"):
        load_stream(net, state | {"condition_embedder.text_embedder.linear_1.weight": torch.zeros(1, 1)})


def test_weights_load_from_a_folder_of_shards(tmp_path) -> None:
    from safetensors.torch import save_file

    state = wan().state_dict()
    half = len(state) // 2
    for i, part in enumerate((list(state)[:half], list(state)[half:])):
        save_file({k: state[k] for k in part}, tmp_path / f"part-{i}.safetensors")
    net = ours()
    load_wan(net, tmp_path)
    torch.testing.assert_close(net.video.head.head.weight, state["proj_out.weight"])
    with pytest.raises(ValueError, match=r"holds no \.safetensors"):
        load_wan(net, tmp_path / "nowhere")
