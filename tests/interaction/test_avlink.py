"""AV-Link's fusion block against its definition written out: a softmax over both streams' tokens, query by query."""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ccl import cli
from ccl.generation import Pipeline
from ccl.grid import Grid
from ccl.interaction import AVLink, Seen, Site, Update
from ccl.interaction.avlink import places
from ccl.interaction.times import Times
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.stream import WanStream
from ccl.nn.layers import EPS
from ccl.planning.count import forward_flops
from ccl.planning.kinds import shorten
from ccl.types import ALONE, AV, CLOSED, OPEN, Route, View
from helpers import ROOT

GRID = Grid(frames=9, height=16, width=32)  # t_v 3, 1 x 2 tokens; t_a 11
WIDTH = AV(24, 16)
SITE = Site(*WIDTH, head_dim=AV(8, 8))
A2V, V2A = Route(True, False), Route(False, True)
ROUTES = [OPEN, CLOSED, A2V, V2A]
CPU = torch.device("cpu")


def awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with random weights everywhere."""
    g = torch.Generator().manual_seed(seed)
    for p in module.double().parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.3
    return module


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def streams(seed: int = 1) -> AV[Tensor]:
    return AV(randn(seed, 2, GRID.s_v, WIDTH.video), randn(seed + 1, 2, GRID.t_a, WIDTH.audio))


def seen(link: AVLink, x: AV, route: Route = OPEN, source: AV | None = None, times: AV | None = None) -> Seen:
    """As the network would hand it: video frames have times of their own."""
    t = AV(torch.tensor([[0.0, 0.7, 0.7]] * 2), torch.tensor([[0.2], [0.9]])) if times is None else times
    shared = awake(link.trunk(), 7)(AV.zip(lambda _, t: t, x, t))
    return Seen(x, x if source is None else source, route, t, link.layout(GRID, CPU), shared=shared)


def updates(link: AVLink, *args: Any, **kwargs: Any) -> AV[Tensor]:
    """What is not there written as zeros."""
    one = seen(link, *args, **kwargs)
    return AV.zip(lambda x, u: torch.zeros_like(x) + (0 if u is None else u), one.x, link("before", one).add)


# The definition


def normal(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + EPS).sqrt()


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def turned(x: Tensor, position: float) -> Tensor:
    """One head of one token, (p,), its pairs as complex numbers."""
    p = len(x)
    out = [complex(x[2 * i], x[2 * i + 1]) * complex(math.cos(a), math.sin(a))
           for i in range(p // 2) for a in [position * 10_000 ** (-2 * i / p)]]  # fmt: skip
    return torch.tensor([part for z in out for part in (z.real, z.imag)], dtype=torch.float64)


def naive(link: AVLink, x: AV, shared: AV, see: dict[str, list[str]], clip: int) -> dict[str, Tensor]:
    """Updates of one clip: per query and head a softmax over the tokens of the streams that `see` lists."""
    block, p = link.fusion, link.head_dim
    frame = GRID.h * GRID.w
    moments = {"video": [float(i // frame) for i in range(GRID.s_v)],
               "audio": [j * GRID.t_v / GRID.t_a for j in range(GRID.t_a)]}  # fmt: skip
    h, z, gates, keys, values = {}, {}, {}, {}, {}
    for name in ("video", "audio"):
        ends, tokens = getattr(block, name), getattr(x, name)[clip]
        e = getattr(shared, name)[clip] + ends.modulation[0]  # (f, 6, w)
        e = e.repeat_interleave(len(tokens) // len(e), 0)
        z[name] = ends.into(normal(tokens) * ends.norm.weight + ends.norm.bias)
        h[name] = normal(z[name]) * (1 + e[:, 1]) + e[:, 0]
        gates[name] = e
        keys[name], values[name] = rms(block.k(h[name]), block.norm_k.weight), block.v(h[name])
    out = {}
    for name in see:
        rows = []
        for i in range(len(h[name])):
            q = rms(block.q(h[name][i]), block.norm_q.weight)
            heads = []
            for head in range(len(q) // p):
                part = slice(head * p, (head + 1) * p)
                mine = turned(q[part], moments[name][i])
                scores, answers = [], []
                for other in see[name]:
                    for j in range(len(h[other])):
                        key = turned(keys[other][j, part], moments[other][j])
                        scores.append(float(mine @ key) / math.sqrt(p))
                        answers.append(values[other][j, part])
                weights = [math.exp(s - max(scores)) for s in scores]
                heads.append(sum(w / sum(weights) * v for w, v in zip(weights, answers, strict=True)))
            y = z[name][i] + gates[name][i, 2] * block.o(torch.cat(heads))
            f = block.ffn(normal(y) * (1 + gates[name][i, 4]) + gates[name][i, 3])
            rows.append(getattr(block, name).back(y + gates[name][i, 5] * f))
        out[name] = torch.stack(rows)
    return out


@torch.no_grad()
@pytest.mark.parametrize("closed, width", [("nothing", None), ("own", 40)])
@pytest.mark.parametrize("route", ROUTES)
def test_a_fusion_block_is_a_softmax_over_both_streams_query_by_query(route: Route, closed: str, width) -> None:
    link, x = awake(AVLink(SITE, closed=closed, width=width)).eval(), streams()
    one, clip = seen(link, x, route), 1
    ours = updates(link, x, route)
    see = {"video": ["video", "audio"][: 1 + route.a2v], "audio": ["audio", "video"][: 1 + route.v2a]}
    see = {name: those for name, those in see.items() if len(those) == 2 or closed == "own"}
    expected = naive(link, x, one.shared, see, clip)
    for name, tokens in ours._asdict().items():
        torch.testing.assert_close(tokens[clip], expected.get(name, torch.zeros_like(tokens[clip])), rtol=0, atol=1e-9)


def test_the_trunk_reads_each_time_as_wans_own_embedding_does() -> None:
    times, t = awake(Times(8)), torch.tensor([[0.04, 0.5]])
    (e,) = times(AV(None, t))[1:]
    for frame, at in enumerate(t[0].tolist()):
        angles = [1000 * at * 10_000 ** (-i / 128) for i in range(128)]
        sines = torch.tensor([f(a) for f, a in product((math.cos, math.sin), angles)], dtype=torch.float64)
        torch.testing.assert_close(e[0, frame].flatten(), times.layers(sines), rtol=1e-5, atol=1e-5)


# Routes


@pytest.mark.parametrize("closed", ["nothing", "own"])
def test_a_closed_direction_is_exact_and_a_row_is_its_own(closed: str) -> None:
    link, x, other = awake(AVLink(SITE, closed=closed)).eval(), streams(1), streams(5)
    both = updates(link, x)
    for route in ROUTES:
        ours, theirs = updates(link, x, route), updates(link, x, route, source=other)
        for name, opened in zip(AV._fields, (route.a2v, route.v2a), strict=True):
            mine = getattr(ours, name)
            assert torch.equal(mine, getattr(theirs, name)) != opened
            assert torch.equal(mine, getattr(both, name)) == opened
            assert bool(mine.any()) == (opened or closed == "own")


def test_the_given_stream_is_updated_unless_its_route_is_closed() -> None:
    """V2A with video given: reinjection is the route from audio to video."""
    link, x, later = awake(AVLink(SITE)).eval(), streams(1), streams(5)
    adapts = updates(link, x).video, updates(link, AV(x.video, later.audio)).video
    assert adapts[0].any() and not torch.equal(*adapts)
    assert not updates(link, x, V2A).video.any() and updates(link, x, V2A).audio.any()


@pytest.mark.parametrize("closed", ["nothing", "own"])
@pytest.mark.parametrize("route", ROUTES)
def test_every_parameter_has_a_gradient_whatever_the_route(route: Route, closed: str) -> None:
    link, trunk = awake(AVLink(SITE, closed=closed)), awake(Times(16), 3)
    x = streams().map(lambda x: x.requires_grad_())
    given = AV(x.video.detach(), x.audio)
    for source in (x, given):
        one = seen(link, x, route, source)._replace(shared=trunk(AV(torch.ones(2, 1), torch.ones(2, 1))))
        after = AV.zip(lambda x, u: x if u is None else x + u, x, link("before", one).add)
        (after.video.square().sum() + after.audio.square().sum()).backward()
        assert all(p.grad is not None for p in (*link.parameters(), *trunk.parameters()))
        link.zero_grad(), trunk.zero_grad()


def test_a_stream_that_is_read_detached_gives_no_gradient_and_the_same_numbers() -> None:
    link, x = awake(AVLink(SITE)), streams().map(lambda x: x.requires_grad_())
    for source, reaches in ((x, True), (x.map(torch.detach), False)):
        out = updates(link, x, V2A, source)
        (grad,) = torch.autograd.grad(out.audio.square().sum(), x.video, allow_unused=True)
        assert (grad is not None) == reaches
        assert torch.equal(out.audio, updates(link, x, V2A).audio)


# In a network


def net(depth: int, **kwargs: Any) -> DualStreamTransformer:
    ends = {"video": WanStream(24, 32, 4), "audio": WanStream(16, 24, 6)}
    return DualStreamTransformer(
        **ends, layers=depth, head_dim=8, text_dim=8, freq_dim=16, interaction=partial(AVLink, **kwargs)
    )


def inputs(seed: int = 1) -> tuple[AV, AV, Tensor]:
    z = AV(randn(seed, 2, 4, GRID.t_v, GRID.latent_height, GRID.latent_width), randn(seed + 1, 2, 6, GRID.t_a))
    return z, AV(torch.full((2,), 0.04), torch.tensor([0.3, 0.8])), randn(9, 2, 5, 8)


@torch.no_grad()
def test_a_network_starts_as_its_two_streams_and_a_stream_alone_is_its_backbone() -> None:
    model, (z, t, text) = awake(net(2)), inputs()
    apart = model(z, t, text, grid=GRID, view=ALONE).velocity
    video = model(AV(z.video, None), AV(t.video, None), text, grid=GRID).velocity.video
    assert torch.equal(video, apart.video)
    for block in model.blocks:
        block.interaction.fusion.video.back.reset_parameters(), block.interaction.fusion.audio.back.reset_parameters()
    fresh = model(z, t, text, grid=GRID).velocity
    assert torch.equal(fresh.video, apart.video) and torch.equal(fresh.audio, apart.audio)


def test_what_returns_to_the_given_stream_is_learned_where_it_is_read_with_its_gradients() -> None:
    """V2A: the video's own loss does not count, so its updates learn from what later blocks read of them."""
    model, (z, t, text) = awake(net(2)), inputs()
    back = model.blocks[0].interaction.fusion.video.back
    for detach, learned in ((AV(False, False), True), (AV(True, False), False)):
        model.zero_grad()
        v = model(z, t, text, grid=GRID, view=View(OPEN, detach)).velocity
        (v.audio.square().sum() + 0 * v.video.sum()).backward()
        assert bool(back.weight.grad.any()) == learned


@torch.no_grad()
@pytest.mark.parametrize("layers, expected", [([1], [1]), (2, [0, 2])])
def test_several_blocks_meet_by_the_definition_and_the_others_are_the_streams(layers, expected, monkeypatch) -> None:
    model, (z, t, text) = awake(net(3, layers=layers)).eval(), inputs()
    kinds = [block.interaction for block in model.blocks]
    assert [i for i, link in enumerate(kinds) if link.active] == expected
    assert not any([*link.parameters()] for link in kinds if not link.active)
    views = [View(V2A), View(OPEN)]
    ours = model(z, t, text, grid=GRID, view=views).velocity

    def written_out(link: AVLink, where: str, seen: Seen) -> Update:
        assert where == "before"
        see = {"audio": ["audio", "video"], **({"video": ["video", "audio"]} if seen.route.a2v else {})}
        clips = [naive(link, seen.x, seen.shared, see, clip) for clip in range(len(seen.x.video))]
        return Update(AV(*(torch.stack([c[s] for c in clips]) if s in see else None for s in ("video", "audio"))))

    monkeypatch.setattr(AVLink, "forward", written_out)
    theirs = model(z, t, text, grid=GRID, view=views).velocity
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


def test_blocks_are_spread_evenly_or_as_listed() -> None:
    assert places(8, 24) == [1, 4, 7, 10, 13, 16, 19, 22] and places(8, 3) == [0, 1, 2] and places(1, 3) == [1]
    assert len({*places(8, 30)}) == 8 == len({*places(8, 40)}) and places([5, 2], 6) == [5, 2]
    for wrong in (0, [], [3], [-1]):
        with pytest.raises(ValueError, match="AVLink's layers"):
            places(wrong, 3)
    with pytest.raises(ValueError, match="width 20 is not a multiple of head_dim 8"):
        AVLink(SITE, width=20)


def test_bfloat16_autocast_stays_near_float32() -> None:
    link = awake(AVLink(SITE)).float().eval()
    one = seen(link, streams())
    one = one._replace(
        **{name: getattr(one, name).map(torch.Tensor.float) for name in ("x", "source", "shared", "layout")}
    )
    exact = link("before", one).add
    with torch.autocast("cpu", torch.bfloat16):
        near = link("before", one).add
    for a, b in zip(near, exact, strict=True):
        assert (a.float() - b).norm() / b.norm() < 0.02


@pytest.mark.parametrize("layers, active", [([1], 1), (2, 2)])
def test_a_plan_counts_the_blocks_that_are_there(layers: Any, active: int) -> None:
    with torch.device("meta"):
        counted = forward_flops(shorten(net(3, layers=layers)), GRID)["interaction"].total
    w, v, a = WIDTH.audio, GRID.s_v, GRID.t_a
    products = WIDTH.video * v + WIDTH.audio * a  # in, and back
    block = 4 * w * products + 2 * (4 + 8) * w * w * (v + a) + 4 * w * (v + a) ** 2
    trunk = 2 * (256 * w + 7 * w * w) * (GRID.t_v + 1)  # each frame may have a time of its own
    assert counted == active * block + trunk


# Trained as its configs say

TINY = """\
model:
  net: {init_args: {video: {width: 64, ffn: 64}, audio: {width: 32, ffn: 32}, layers: 3}}
  optimizer: {schedule: constant, warmup_steps: 1}
  pretrained: null
data: {init_args: {root: WORLD, clips: 2, batch_size: 2, makers: 0}}
sampling: {steps: 2}
trainer:
  max_steps: 2
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: ccl.callbacks.TaskRouter
    - class_path: ccl.callbacks.LossLog
    - class_path: ccl.callbacks.SaveCheckpoint
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: streams that are trained side by side, and the fusion blocks that are then trained between them."""
    folder, configs = tmp_path_factory.mktemp("avlink"), ROOT / "configs"
    (folder / "tiny.yaml").write_text(TINY.replace("WORLD", str(folder / "world")))

    def fit(name: str, *overlays: Path, **settings: Any) -> None:
        files = [f"--config={file}" for file in (configs / "joint.yaml", *overlays, folder / "tiny.yaml")]
        settings = {f"model.net.init_args.interaction{settings.pop('key', '')}": settings.pop("value"), **settings}
        more = [f"--{key}={value}" for key, value in settings.items()]
        assert cli.main(["fit", *files, f"--runs_dir={folder}", f"--name={name}", *more]) == 0

    fit("apart", value=configs / "interaction" / "none.yaml")
    pretrained = {"model.pretrained": folder / "apart"}
    fit("link", configs / "trainer" / "avlink.yaml", key=".init_args.layers", value=[0, 2], **pretrained)
    return folder


def weights(run: Path) -> dict[str, Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_training_moves_the_fusion_blocks_alone_and_counts_what_is_generated(folder: Path) -> None:
    before, after = weights(folder / "apart"), weights(folder / "link")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    new = {name: tensor for name, tensor in after.items() if name not in before}
    assert all(".interaction.fusion." in name or name.startswith("net.trunk.") for name in new)
    assert {name.split(".")[2] for name in new if ".interaction." in name} == {"0", "2"}
    assert all(tensor.any() for name, tensor in new.items() if name.endswith(".back.weight"))
    rows = [json.loads(line) for line in (folder / "link" / "losses.jsonl").read_text().splitlines()]
    assert [(row["task"], {*row} & {"video", "audio"}) for row in rows] == [("v2a", {"audio"}), ("a2v", {"video"})]


PICTURES = np.random.default_rng(0).integers(0, 255, (77, 48, 48, 3), dtype=np.uint8)
SOUND = np.sin(np.arange(49_280) / 20).astype(np.float32)


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    """The model that `ccl export` makes of the run."""
    assert cli.main(["export", str(folder / "link"), "-o", str(folder / "model")]) == 0
    return Pipeline.load(folder / "model", device="cpu")


@pytest.mark.parametrize("given, media, time", [("video", PICTURES, 0.04), ("audio", SOUND, 0.2)])
def test_an_exported_model_samples_as_it_was_trained(pipe, given, media, time, monkeypatch) -> None:
    """Both ways open, and the given stream held at its time, with its noise, while the other one is generated."""
    seen: list[tuple[Any, ...]] = []
    forward = pipe.net.forward
    monkeypatch.setattr(
        pipe.net,
        "forward",
        lambda x, t, text, **kwargs: (seen.append((x, t, kwargs)), forward(x, t, text, **kwargs))[1],
    )
    clip = pipe('A woman says "we like fresh bread"', **{given: media})
    assert np.array_equal(getattr(clip, given), media) and clip.video.shape == PICTURES.shape and len(clip.audio)
    assert len(seen) == 2  # steps; each of two passes at once
    first, last = (getattr(x, given) for x, _, _ in seen)
    assert torch.equal(first, last)
    for _, t, kwargs in seen:
        assert (getattr(t, given) == time).all() and kwargs["view"] == [View(OPEN), View(OPEN)]
    clean = pipe.conditions.encode(given, media)
    noise = (first[0] - (1 - time) * clean) / time
    assert torch.equal(first[0], first[1]) and noise.std().item() == pytest.approx(1, abs=0.05)
    other = "audio" if given == "video" else "video"
    assert [float(getattr(t, other)[0]) for _, t, _ in seen] == pytest.approx([1.0, 0.5])


def test_a_task_that_was_not_trained_is_refused(pipe: Pipeline) -> None:
    with pytest.raises(ValueError, match=r"not trained for pictures and sound; it knows: v2a .*; a2v "):
        pipe("A drum")
