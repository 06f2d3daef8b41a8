"""Ovi's fusion: its published layout loads whole and gives what its definition, written out, gives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ccl.grid import Grid
from ccl.interaction import NoInteraction, OviFusion, Seen, Site
from ccl.model import DualStreamTransformer, OviAudioStream, WanStream
from ccl.model.load import load_stream, load_wan, match
from ccl.nn.rope import rotate
from ccl.types import ALONE, AV, OPEN, Route, Skip, View
from helpers import ovi_files
from helpers.wan_streams import awake, original, ours, relative, wan

GRID = Grid(frames=13, fps=24.0, height=128, width=96, stride_space=16)  # 4 x 4 x 3 video tokens, 16 of sound
CHANNELS, TEXT, FREQ, LAYERS = AV(8, 5), 24, 64, 2


def ovi_net(width: int = 64, head_dim: int = 32, interaction: Any = OviFusion, layers: int = LAYERS) -> Any:
    return DualStreamTransformer(
        video=WanStream(width, 96, CHANNELS.video),
        audio=OviAudioStream(width, 96, CHANNELS.audio, hidden=80),
        **{"layers": layers, "head_dim": head_dim, "text_dim": TEXT, "freq_dim": FREQ},
        interaction=interaction,
        rescale=ovi_files.FACTOR,
    ).eval()


def published(width: int = 64) -> dict[str, Tensor]:
    sizes = {"layers": LAYERS, "hidden": 80, "text": TEXT, "freq": FREQ}
    return ovi_files.drawn(ovi_files.shapes(width, 96, CHANNELS, **sizes))


def clips(seed: int = 1) -> tuple[AV[Tensor], AV[Tensor]]:
    """Latents of two clips, and a text of its own for each stream."""
    g = torch.Generator().manual_seed(seed)
    video = torch.randn(2, CHANNELS.video, GRID.t_v, GRID.latent_height, GRID.latent_width, generator=g)
    sound = torch.randn(2, CHANNELS.audio, GRID.t_a, generator=g)
    return AV(video, sound), AV(*(torch.randn(2, 10, TEXT, generator=g) for _ in range(2)))


def times(*, clean: bool = False) -> AV[Tensor]:
    """Of each latent frame; one of the two clips may have its first frame given, at t = 0."""
    t = torch.tensor([[0.3], [0.9]])
    frames = t.repeat(1, GRID.t_v)
    if clean:
        frames[1, 0] = 0
    return AV(frames, t.repeat(1, GRID.t_a))


# What the published weights give


@pytest.mark.parametrize("head_dim", [32, 128])
@pytest.mark.parametrize("clean", [False, True], ids=["joint", "first frame clean"])
@torch.no_grad()
def test_the_published_layout_gives_what_ovi_s_definition_gives(clean: bool, head_dim: int) -> None:
    width = 2 * head_dim
    net, state = ovi_net(width, head_dim), published(width)
    report = load_stream(net, state)
    assert len(report.loaded) == len(state) == len(list(net.parameters()))
    assert report.unexpected == report.new == report.missing == ()
    (x, text), t = clips(), times(clean=clean)
    expected = ovi_files.ovi(state, x, t, text, head=head_dim, layers=LAYERS)
    out = net(x, t, text, grid=GRID).velocity
    assert relative(out.video, expected.video) < 1e-5 and relative(out.audio, expected.audio) < 1e-5
    apart = net(x, t, text, grid=GRID, view=ALONE).velocity
    assert relative(apart.video, expected.video) > 0.1 and relative(apart.audio, expected.audio) > 0.1


@pytest.mark.parametrize("stream", ["video", "audio"])
@torch.no_grad()
def test_each_tower_alone_gives_what_ovi_s_definition_gives(stream: str) -> None:
    net, state = ovi_net(), published()
    load_stream(net, state)
    (x, text), t = clips(), times(clean=True)
    one, at = (AV(**{"video": None, "audio": None} | {stream: getattr(of, stream)}) for of in (x, t))
    expected = getattr(ovi_files.ovi(state, one, at, text, head=32, layers=LAYERS), stream)
    alone = getattr(net(one, at, text, grid=GRID, view=ALONE).velocity, stream)
    assert relative(alone, expected) < 1e-5
    torch.testing.assert_close(getattr(net(x, t, text, grid=GRID, view=ALONE).velocity, stream), alone, rtol=0, atol=0)


@torch.no_grad()
def test_passes_that_see_differently_go_together_in_half_precision_too() -> None:
    """Joint, apart, without a block, and one direction alone: as guidance asks, in one batch as one by one."""
    net = awake(ovi_net()).bfloat16()
    (x, text), t = clips(), times()
    views = [View(), ALONE, View(skip=frozenset({Skip("block", frozenset({1}))})), View(Route(True, False))]
    x, text, t = (AV(*(torch.cat([z[:1]] * len(views)) for z in pair)) for pair in (x, text, t))
    together = net(x, t, text, grid=GRID, view=views).velocity
    for i, view in enumerate(views):
        one = [AV(*(z[i : i + 1] for z in pair)) for pair in (x, t, text)]
        for a, b in zip(net(*one, grid=GRID, view=view).velocity, together, strict=True):
            assert relative(b[i : i + 1], a) < 0.02, view


# Loading


def test_ovi_s_published_size_is_whole_in_a_network_with_its_fusion() -> None:
    """2073 keys of two towers 3072 wide and 30 deep, and a network that has a parameter for each."""
    shapes = ovi_files.shapes(3072, 14336, AV(48, 20), layers=30, hidden=8192, text=4096, freq=256)
    with torch.device("meta"):
        net = DualStreamTransformer(
            video=WanStream(3072, 14336, 48),
            audio=OviAudioStream(3072, 14336, 20),
            interaction=OviFusion,
            **{"layers": 30, "head_dim": 128, "text_dim": 4096},
        )
    report = match(net, shapes, "it").check()
    assert len(report.loaded) == len(shapes) == 2073
    assert report.unexpected == report.new == report.missing == () and not report.shapes
    own = {name: p.numel() for name, p in net.named_parameters()}
    assert sum(own.values()) == sum(map(math.prod, shapes.values())) == pytest.approx(11.661e9, abs=5e5)
    assert sum(n for name, n in own.items() if "interaction" in name) == pytest.approx(1.133e9, abs=5e5)


@pytest.mark.parametrize("lost", ["video_model.blocks.1.cross_attn.v_fusion.bias", None])
def test_a_file_has_the_fusion_whole_or_nothing_of_it(lost: str | None, tmp_path: Path) -> None:
    net, state = ovi_net(), published()
    before = [p.clone() for p in net.parameters()]
    if lost:
        save_file({key: value for key, value in state.items() if key != lost}, tmp_path / "ovi.safetensors")
        said = r"the checkpoint lacks 1 keys, the first is blocks\.1\.interaction\.a2v\.v_fusion\.bias"
        with pytest.raises(ValueError, match=said):
            load_wan(net, tmp_path / "ovi.safetensors")
        assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
        return
    report = load_stream(net, {key: value for key, value in state.items() if "_fusion" not in key})
    assert report.new and all(".interaction." in name for name in report.new)
    assert "new, as initialised: 28 (interaction 28)" in str(report)


def test_one_tower_brings_the_direction_that_it_reads_by() -> None:
    net, state = ovi_net(), published()
    tower = {key.removeprefix("audio_model."): value for key, value in state.items() if key.startswith("audio_model.")}
    report = load_stream(net, tower, "audio")
    assert report.streams == ("audio",) and report.unexpected == ()
    assert {name.split(".")[3] for name in report.loaded if ".interaction." in name} == {"v2a"}
    assert any(".interaction.a2v." in name for name in report.new)
    assert "of the audio stream and the interaction loaded" in str(report)


def test_a_wan_backbone_leaves_the_fusion_new() -> None:
    net = ours(audio=OviAudioStream(64, 32, 4, hidden=40), interaction=OviFusion)
    report = load_stream(net, original(wan()))
    assert report.streams == ("video",) and {"interaction", "audio"} <= {
        n.split(".")[2] for n in report.new if "." in n
    }


def test_the_fusion_is_filled_shard_by_shard() -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    from ccl.training.fsdp import shard
    from ccl.weights.fill import spread

    net, whole, state = ovi_net(), ovi_net(), published()
    load_stream(whole, state)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        shard(net, init_device_mesh("cpu", (1,)), bf16=False)
        load_stream(net, state, place=lambda p, tensor: p.copy_(spread(tensor, p)))
        loaded = {name: p.full_tensor() for name, p in net.named_parameters()}
    finally:
        dist.destroy_process_group()
    assert all(torch.equal(loaded[name], p) for name, p in whole.named_parameters())


# The rest


def test_only_the_video_stream_s_own_linears_start_ten_times_smaller() -> None:
    torch.manual_seed(0)
    fusion = OviFusion(Site(96, 96, AV(16, 16)))
    bound = (6 / (96 + 96)) ** 0.5  # of Xavier's uniform draw
    for direction, most in ((fusion.a2v, 0.1 * bound), (fusion.v2a, bound)):
        for linear in (direction.k_fusion, direction.v_fusion):
            assert 0.99 * most < linear.weight.abs().max() <= most and not linear.bias.any()


def naive(direction: Any, q: Tensor, y: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Every query over every key of the other stream, one by one."""
    y = direction.pre_attn_norm_fusion(y)
    k = direction.norm_k_fusion(direction.k_fusion(y)).unflatten(-1, (-1, direction.head_dim))
    v = direction.v_fusion(y).unflatten(-1, (-1, direction.head_dim))
    q, k = rotate(q, rope[0]), rotate(k, rope[1])
    out = torch.zeros_like(q)
    for b, h in ((b, h) for b in range(len(q)) for h in range(q.shape[2])):
        for i in range(q.shape[1]):
            scores = torch.stack([q[b, i, h] @ key for key in k[b, :, h]]) / direction.head_dim**0.5
            out[b, i, h] = sum(w * value for w, value in zip(scores.softmax(0), v[b, :, h], strict=True))
    return out


@torch.no_grad()
def test_streams_of_unequal_width_read_each_other_as_a_double_loop_does() -> None:
    grid = Grid(frames=9, height=16, width=32)
    fusion, x = (
        awake(OviFusion(Site(48, 24, AV(12, 8)))),
        AV(torch.randn(2, grid.s_v, 48), torch.randn(2, grid.t_a, 24)),
    )
    q = AV(torch.randn(2, grid.s_v, 4, 12), torch.randn(2, grid.t_a, 3, 8))
    rope = fusion.layout(grid, torch.device("cpu"))
    add = fusion("text", Seen(x, x, OPEN, layout=rope, q=q)).add
    torch.testing.assert_close(add.video, naive(fusion.a2v, q.video, x.audio, rope.video))
    torch.testing.assert_close(add.audio, naive(fusion.v2a, q.audio, x.video, rope.audio))


@torch.no_grad()
def test_positions_are_those_of_self_attention_with_the_network_s_factor() -> None:
    common = ovi_net().layout(GRID, torch.device("cpu"))
    for tables, own in zip(common.layout, common.rope.pairs, strict=True):
        assert all(map(torch.equal, tables, own))
    assert ovi_net().interaction.rescale == ovi_files.FACTOR  # which the fusion was not told
    site = Site(64, 64, AV(32, 32), rescale=ovi_files.FACTOR)
    video, audio = OviFusion(site, rescale="index").layout(GRID, torch.device("cpu")).video
    assert torch.equal(video, common.rope.video) and not torch.equal(audio, common.rope.audio)
    with pytest.raises(ValueError, match=r"rescale is nan; a factor must be a positive number"):
        OviFusion(Site(64, 64, AV(32, 32)), rescale=math.nan)


@torch.no_grad()
def test_the_plan_counts_the_shared_queries_with_the_text() -> None:
    from ccl.planning.count import by_part
    from ccl.planning.follow import Counting

    (x, text), t = clips(), times()

    def counted(interaction: Any) -> dict[str, Any]:
        with Counting() as counter:
            ovi_net(interaction=interaction)(x, t, text, grid=GRID)
        return by_part(counter, [1] * LAYERS)

    apart, fused = counted(NoInteraction), counted(OviFusion)
    assert {part: flops for part, flops in fused.items() if "interaction" not in part} == apart
    keys_and_values = LAYERS * len(x.video) * 2 * 2 * 64**2  # of each token: two products, of two operations a weight
    assert fused["interaction a2v"].linear == keys_and_values * GRID.t_a
    assert fused["interaction v2a"].linear == keys_and_values * GRID.s_v
