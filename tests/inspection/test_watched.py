"""Attention read from a forward is that of the forward, and its figures are those of a loop over tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl.grid import Grid
from ccl.inspection.attention import by_places, look, measured
from ccl.inspection.picture import clip_figure, layer_figure, pixels_of, png_of
from ccl.inspection.regions import audio_regions, by_token
from ccl.inspection.report import figures_of, lines_of, write
from ccl.inspection.watch import Seen, untold, watched
from ccl.interaction import (
    CCA,
    TARP,
    AVLink,
    Framewise,
    Gate,
    Global,
    Harmony,
    Interaction,
    LTX2Attention,
    MOVABridge,
    OviFusion,
    UniAVGen,
)
from ccl.interaction.base import Seen as Given
from ccl.interaction.base import Site, Update
from ccl.media import Clip
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.stream import WanStream
from ccl.rng import generator
from ccl.types import AV, CLOSED, OPEN, Route, View
from helpers.fakes import CHANNELS, GRID, make_net, make_text
from helpers.tiny import awake

KINDS: dict[str, Any] = {
    "cca": lambda site: CCA(site, TARP("proportional"), num_context_audio=2, num_context_video=3),
    "clamped": lambda site: CCA(site, TARP("paper", "clamp"), num_context_audio=2, num_context_video=0),
    "global": lambda site: CCA(site, Global(), num_context_audio=2, num_context_video=3),
    "gate": lambda site: Gate(site, TARP("true")),
    "avlink": lambda site: AVLink(site, layers=2, closed="own"),
    "ovi": lambda site: OviFusion(site),
    "mova": lambda site: MOVABridge(site),
    "ltx2": lambda site: LTX2Attention(site),
    "uniavgen": lambda site: UniAVGen(site, window=1),
    "harmony": lambda site: Harmony(site, Framewise()),
}


def net_of(kind: str) -> DualStreamTransformer:
    net = DualStreamTransformer(
        video=WanStream(width=16, ffn=32, channels=CHANNELS.video),
        audio=WanStream(width=16 if kind == "ovi" else 8, ffn=16, channels=CHANNELS.audio),
        layers=2, head_dim=8, text_dim=8, interaction=KINDS[kind], freq_dim=16,
    )  # fmt: skip
    awake(net)
    return net.eval()


def latents(count: int = 2, grid: Grid = GRID) -> AV[Any]:
    shapes = AV((CHANNELS.video, grid.t_v, grid.latent_height, grid.latent_width), (CHANNELS.audio, grid.t_a))
    return shapes.map(lambda shape: torch.randn(count, *shape, generator=generator("z", len(shape))))


def run(net: DualStreamTransformer, route: Route = OPEN) -> list[Seen]:
    z = latents()
    with watched(net) as seen, torch.no_grad():
        net(z, z.map(lambda x: x.new_full((len(x),), 0.5)), make_text()(["a", "b"]), grid=GRID, view=View(route))
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", [OPEN, CLOSED, Route(True, False)], ids=["open", "closed", "a2v"])
def test_shares_of_a_token_sum_to_one(kind: str, route: Route) -> None:
    seen = run(net_of(kind), route)
    both = {(one.layer, one.direction) for one in seen}
    if route == OPEN:
        assert both == {(layer, direction) for layer in (0, 1) for direction in ("a2v", "v2a")}
    if kind in ("gate", "ovi", "mova", "ltx2", "uniavgen", "harmony"):  # a closed gate attends to nothing
        assert {direction for _, direction in both} == {d for d in ("a2v", "v2a") if getattr(route, d)}
    for one in seen:
        whole = one.other.sum(-1) + sum(one.rest.values())
        torch.testing.assert_close(whole, torch.ones_like(whole))


@pytest.mark.parametrize("kind", ["cca", "clamped", "global", "gate"])
def test_weights_are_those_of_a_loop_over_tokens_and_give_the_update(kind: str) -> None:
    net = net_of(kind)
    block = net.blocks[0].interaction
    kept: list[tuple[Any, ...]] = []
    handle = block.register_forward_pre_hook(lambda module, args: kept.append(args))
    run(net)
    handle.remove()
    ((where, given),) = kept
    with torch.no_grad():
        update, weights = block(where, given).add, block.attention(where, given)
    layout = given.layout
    for direction, out, found, x, source, rope in (
        ("a2v", update.video, weights.video, given.x.video, given.source.audio, layout.rope.video),
        ("v2a", update.audio, weights.audio, given.x.audio, given.source.video, layout.rope.audio),
    ):
        own = getattr(block, direction)
        with torch.no_grad():
            expected = naive(own, x, source, getattr(layout.groups, direction), rope)
            dense = torch.cat([found.other, *found.rest.values()], -1)
            v = own.v(own.norm_source(source))
            if own.context is not None:
                v = torch.cat([v, own.context_kv()[1].flatten(1).expand(len(v), -1, -1)], 1)
            v = v.unflatten(-1, (-1, own.head_dim))
            by_weights = own.o(torch.einsum("bhlk,bkhd->blhd", dense, v).flatten(2))
        torch.testing.assert_close(dense, expected)
        torch.testing.assert_close(by_weights, out, atol=1e-5, rtol=1e-4)


def naive(own: Any, x: Any, source: Any, groups: Any, rope: Any) -> torch.Tensor:
    """(b, h, l, m + n), token by token, head by head."""
    from ccl.nn.rope import rotate

    q = rotate(own.norm_q(own.q(own.norm_query(x))).unflatten(-1, (-1, own.head_dim)), rope[0])
    k = rotate(own.norm_k(own.k(own.norm_source(source))).unflatten(-1, (-1, own.head_dim)), rope[1])
    context = own.context_kv()
    n = 0 if context is None else len(context[0])
    b, length, h, d = q.shape
    m = k.shape[1]
    found = torch.zeros(b, h, length, m + n)
    per_key, per_query = m // groups.num, length // groups.num
    for g in range(groups.num):
        asking = range(g * per_query, (g + 1) * per_query)
        if groups.queries is not None:
            width = groups.queries.shape[1]
            asking = [j for j in range(length) if int(groups.back[j]) // width == g]
        keys = range(g * per_key, (g + 1) * per_key) if groups.keys is None else groups.keys[g].tolist()
        keys = [key for i, key in enumerate(keys) if groups.mask is None or groups.mask[g, i]]
        for i in range(b):
            for head in range(h):
                for j in asking:
                    scores = [float(q[i, j, head] @ k[i, key, head]) / d**0.5 for key in keys]
                    scores += [float(q[i, j, head] @ context[0][c, head]) / d**0.5 for c in range(n)]
                    weights = np.exp(np.array(scores) - max(scores))
                    for place, weight in zip([*keys, *range(m, m + n)], weights / weights.sum(), strict=True):
                        found[i, head, j, place] += float(weight)
    return found


def test_watching_changes_nothing_and_ends_with_its_block() -> None:
    net, z = net_of("cca"), latents()
    args = (z, z.map(lambda x: x.new_full((len(x),), 0.5)), make_text()(["a", "b"]))
    with torch.no_grad():
        before = net(*args, grid=GRID).velocity
        with watched(net) as seen:
            during = net(*args, grid=GRID).velocity
        assert len(seen) == 4
        net(*args, grid=GRID)
    assert len(seen) == 4
    assert all(torch.equal(a, b) for a, b in zip(before, during, strict=True))


def test_measures_by_hand() -> None:
    other = torch.tensor([[[0.2, 0.1, 0.0], [0.0, 0.1, 0.3], [0.25, 0.25, 0.5]]])
    context = torch.tensor([[0.7, 0.6, 0.0]])
    found = measured(Seen(0, "a2v", other, {"context": context}), 0, None)
    np.testing.assert_allclose(found["context"], [0.7, 0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found["last"], [np.nan, 0.3 / 0.4 * 2, 1.5], rtol=1e-6)
    mouth = np.array([True, False, False])
    found = measured(Seen(0, "v2a", other, {}), 0, mouth)
    np.testing.assert_allclose(found["on mouth"], [2 / 3, np.nan, 0.25], rtol=1e-6)
    np.testing.assert_allclose(found["mouth of seen"], [1 / 2, np.nan, 1 / 3], rtol=1e-6)
    windows = np.array([[0.1, 0.3, 0, 0], [0, 0.2, 0.2, 0], [0, 0, 0.9, 0.1], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(by_places(windows, np.ones(4, bool)), [(0.5 + 1 + 1.8) / 3, (1.5 + 1 + 0.2) / 3])
    np.testing.assert_allclose(by_places(windows, np.array([False, True, False, True])), [1, 1])


def test_a_model_of_even_attention_has_no_bias_and_leaves_the_context_its_number() -> None:
    net = make_net()
    for name, parameter in net.named_parameters():
        if ".interaction." in name and (".q." in name or ".norm_q" in name):
            torch.nn.init.zeros_(parameter)  # all scores 0
    regions = [AV({"all": np.ones(GRID.s_v, bool)}, audio_regions(np.ones(GRID.samples, np.float32), GRID))] * 3
    found = look(net.eval(), make_text(), latents(3), ["a", "b", "c"], GRID, regions, time=0.5)
    assert found.mean("a2v", "last", "all") == pytest.approx({"value": 1, "low": 1, "high": 1, "clips": 3}, abs=1e-5)
    np.testing.assert_allclose(found.places["a2v", "all"], 1, atol=1e-5)
    share = found.measures["v2a", "context", "voice"]  # one video token a frame, three context tokens
    np.testing.assert_allclose(share, 3 / 4, atol=1e-6)
    assert share.shape == (2, 3) and found.mean("v2a", "context", "silence") == {
        "not_measured": "no clip has such tokens"
    }


def test_pictures_of_a_token_are_those_that_its_latent_frame_holds() -> None:
    grid = Grid(frames=9, height=32, width=16)
    pixels = np.zeros((9, 32, 16), bool)
    pixels[1:5, 16:, :8] = True
    np.testing.assert_array_equal(by_token(pixels, grid)[:, :, 0], [[0, 0], [0, 0.5], [0, 0]])


def test_a_gate_has_no_context_tokens_and_says_so_and_everything_is_written(tmp_path: Path) -> None:
    net = make_net("gate")
    awake(net)
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (GRID.frames, GRID.height, GRID.width, 3), dtype=np.uint8)
    clip = Clip(video, rng.uniform(-1, 1, GRID.samples).astype(np.float32), GRID.fps, GRID.sample_rate, "a", "x")
    regions = [AV({"all": np.ones(GRID.s_v, bool)}, audio_regions(clip.audio, GRID))] * 2
    looks = [look(net.eval(), make_text(), latents(), ["a", "b"], GRID, regions, time=0.5)]
    said = "\n".join(lines_of(figures_of(looks[0], 2)))
    assert "a2v: there are no context tokens" in said and "share of context" not in said
    assert "on the last audio token" in said
    paths = list(write(looks, clip, GRID, tmp_path))
    assert [path.name for path in paths] == ["clip_t0.5.png", "layers.png", "attention.npz"]
    with np.load(paths[-1]) as arrays:
        assert arrays["0.5/a2v/map"].shape == (2, GRID.s_v, GRID.t_a)
        np.testing.assert_allclose(arrays["0.5/a2v/map"].sum(-1), 1, rtol=1e-5)
    assert any(path.name.startswith("events") for path in tmp_path.iterdir())


def test_an_interaction_that_tells_nothing_gets_a_sentence() -> None:
    class Mute(Interaction):
        def __init__(self, site: Site) -> None:
            super().__init__()

        def forward(self, where: Any, seen: Given) -> Update:
            return Update(AV(None, None))

    made = partial(DualStreamTransformer, layers=1, head_dim=8, text_dim=8, freq_dim=16)
    streams = AV(WanStream(width=16, ffn=16, channels=4), WanStream(width=8, ffn=16, channels=6))
    assert untold(made(video=streams.video, audio=streams.audio, interaction=Mute)).startswith("Mute does not say what")
    assert untold(made(audio=streams.audio)) == "this model has no video stream, so nothing attends to it"
    assert untold(make_net()) == ""


def test_a_drawing_is_small() -> None:
    net = make_net().eval()
    awake(net)
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (GRID.frames, GRID.height, GRID.width, 3), dtype=np.uint8)
    regions = [AV({"all": np.ones(GRID.s_v, bool)}, audio_regions(np.ones(GRID.samples, np.float32), GRID))] * 2
    found = look(net, make_text(), latents(), ["a", "b"], GRID, regions, time=0.5)
    assert len(png_of(pixels_of(clip_figure(found, video, np.ones(GRID.samples, np.float32), GRID)))) < 80_000
    assert len(png_of(pixels_of(layer_figure([found])))) < 40_000
