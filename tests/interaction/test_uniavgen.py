"""UniAVGen's interaction against its definition written out, token by token; its mask, and what that learns from."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from ccl.grid import Grid
from ccl.interaction import Seen, Site, UniAVGen
from ccl.interaction.framewise import sound_around
from ccl.interaction.uniavgen import Aligner, between
from ccl.nn.layers import EPS
from ccl.types import AV, CLOSED, OPEN, Route

WHOLE = Grid(frames=9, fps=24.0, height=32, width=32, latent_rate=50.0)  # t_v 3 of 2 x 2 tokens, t_a 18: k = 6
PART = Grid(frames=17, height=32, width=32)  # t_v 5, t_a 21: k = 4.2
SITE = Site(24, 16, head_dim=AV(8, 4), layers=2)
A2V, V2A = Route(True, False), Route(False, True)


def awake(module: Any) -> Any:
    """In float64, with random weights everywhere."""
    g = torch.Generator().manual_seed(0)
    for p in module.double().parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.3
    return module


def streams(grid: Grid, seed: int = 1) -> AV[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return AV(*(torch.randn(2, n, d, generator=g, dtype=torch.float64) for n, d in ((grid.s_v, 24), (grid.t_a, 16))))


def seen(one: UniAVGen, grid: Grid, x: AV, route: Route = OPEN, **more: Any) -> Seen:
    return Seen(x, x, route, layout=one.layout(grid, torch.device("cpu")), **more)


# The definition


def frame_of(token: int, grid: Grid) -> tuple[int, float]:
    """i and alpha of an audio token."""
    k = Fraction(grid.t_a, grid.t_v)
    return int(token // k), float(token % k / k)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean() + EPS).sqrt() * weight


def asked(one: Aligner, x: Tensor, context: Tensor) -> Tensor:
    """o(x + attention(x, context)) of one token x."""
    q, d, parts = rms(one.q(x), one.norm_q.weight), one.head_dim, []
    keys, values = [rms(one.k(y), one.norm_k.weight) for y in context], [one.v(y) for y in context]
    for head in (slice(at, at + d) for at in range(0, len(q), d)):
        weights = [math.exp(float(q[head] @ k[head]) / math.sqrt(d)) for k in keys]
        parts.append(sum(w * v[head] for w, v in zip(weights, values, strict=True)) / sum(weights))
    return one.o(x + torch.cat(parts))


def naive(one: UniAVGen, x: AV, grid: Grid) -> tuple[Tensor, Tensor]:
    """Both updates of one clip."""
    size, face = grid.h * grid.w, one.face
    mask = torch.ones(grid.s_v, 1, dtype=torch.float64)
    for n, row in enumerate(x.video if face is not None else ()):
        normed = (row - row.mean()) / (row.var(unbiased=False) + EPS).sqrt() * face.norm.weight + face.norm.bias
        mask[n] = 1 / (1 + math.exp(-float(face.linear.weight[0] @ normed + face.linear.bias)))
    video, audio = [], []
    for n, row in enumerate(x.video):
        far = math.inf if one.window is None else one.window
        heard = [y for j, y in enumerate(x.audio) if abs(frame_of(j, grid)[0] - n // size) <= far]
        video.append(mask[n] * asked(one.a2v, row, torch.stack(heard)))
    frames = (mask * x.video).unflatten(0, (grid.t_v, size))
    for j, row in enumerate(x.audio):
        i, alpha = frame_of(j, grid)
        alpha = 0.0 if one.pictures == "frame" else alpha
        shown = (1 - alpha) * frames[i] + alpha * frames[min(i + 1, grid.t_v - 1)]
        audio.append(asked(one.v2a, row, frames.flatten(0, 1) if one.pictures == "all" else shown))
    return torch.stack(video), torch.stack(audio)


@torch.no_grad()
@pytest.mark.parametrize("grid", [WHOLE, PART], ids=["k 6", "k 4.2"])
@pytest.mark.parametrize(
    "kind",
    [
        {"window": 1},
        {"window": 12, "mask": "none"},
        {"window": 0, "pictures": "frame", "mask": "unsupervised"},
        {"window": None, "pictures": "all", "mask": "none"},
    ],
    ids=["asymmetric", "as wide as the paper's", "symmetric", "global"],
)
def test_each_token_reads_what_a_loop_over_tokens_reads(grid: Grid, kind: dict[str, Any]) -> None:
    one, x = awake(UniAVGen(SITE, **kind)), streams(grid)
    add = one("before", seen(one, grid, x)).add
    video, audio = naive(one, AV(x.video[1], x.audio[1]), grid)
    torch.testing.assert_close(add.video[1], video, rtol=0, atol=1e-12)
    torch.testing.assert_close(add.audio[1], audio, rtol=0, atol=1e-12)


def test_where_a_frame_has_a_whole_number_of_tokens_places_are_the_papers() -> None:
    k, j = 6, torch.arange(18)
    at, groups = between(WHOLE), sound_around(WHOLE, 1)
    assert at.first.tolist() == (j // k).tolist() and at.second.tolist() == (j // k + 1).clamp(max=2).tolist()
    assert torch.equal(at.alpha, (j % k).double() / k)
    assert groups.keys is not None and groups.mask is not None
    heard = [keys[inside].tolist() for keys, inside in zip(groups.keys, groups.mask, strict=True)]
    assert heard == [list(range(12)), list(range(18)), list(range(6, 18))]  # of frames 0-1, 0-2, 1-2


def test_every_token_is_heard_where_a_frame_has_no_whole_number_of_them() -> None:
    groups = sound_around(PART, 0)
    assert groups.keys is not None and groups.mask is not None
    heard = [keys[inside].tolist() for keys, inside in zip(groups.keys, groups.mask, strict=True)]
    assert [j for each in heard for j in each] == list(range(21))
    assert [len(each) for each in heard] == [5, 4, 4, 4, 4]


@torch.no_grad()
@pytest.mark.parametrize("pictures", ["between", "frame", "all"])
def test_what_is_told_of_attention_is_what_the_update_is_made_of(pictures: Any) -> None:
    one, x = awake(UniAVGen(SITE, window=1, pictures=pictures, mask="none")), streams(PART)
    given = seen(one, PART, x)
    update, told = one("before", given).add, one.attention("before", given)
    for part, add, weights, own, y in (
        (one.a2v, update.video, told.video.other, x.video, x.audio),
        (one.v2a, update.audio, told.audio.other, x.audio, x.video),
    ):
        v = part.v(y).unflatten(-1, (-1, part.head_dim))
        torch.testing.assert_close(part.o(own + torch.einsum("bhlm,bmhp->blhp", weights, v).flatten(2)), add)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


# The mask


def faces(grid: Grid) -> dict[str, Tensor]:
    """Of each latent pixel."""
    shape = (2, grid.t_v, grid.latent_height, grid.latent_width)
    return {"face_mask": torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)}


def test_its_loss_is_the_mean_cross_entropy_of_tokens_shared_among_the_blocks() -> None:
    one, x, extras = awake(UniAVGen(SITE)), streams(PART), faces(PART)
    losses = one("before", seen(one, PART, x, extras=extras)).losses
    m = one.face(x.video).sigmoid()[..., 0]
    right = torch.stack(
        [extras["face_mask"][..., y : y + 2, z : z + 2].mean((2, 3)) for y in (0, 2) for z in (0, 2)], 2
    )
    right = right.flatten(1)  # of 2 x 2 tokens a frame, each of 2 x 2 latent pixels
    by_hand = -(right * m.log() + (1 - right) * (1 - m).log()).mean(1) / 2
    assert losses.keys() == {"face_mask"}
    torch.testing.assert_close(losses["face_mask"], by_hand)
    for route in (CLOSED, A2V, V2A):  # it is the video's own
        assert torch.equal(
            one("before", seen(one, PART, x, route, extras=extras)).losses["face_mask"], losses["face_mask"]
        )


def test_its_gradient_reaches_the_mask_and_the_stream_and_nothing_else() -> None:
    one, x = awake(UniAVGen(SITE)), streams(PART).map(Tensor.requires_grad_)
    one("before", seen(one, PART, x, extras=faces(PART))).losses["face_mask"].sum().backward()
    moved = {name for name, p in one.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {name for name, _ in one.named_parameters() if name.startswith("face.")}
    assert x.video.grad is not None and x.audio.grad is None


@pytest.mark.parametrize(
    ("mask", "needs", "weights"),
    [
        ("none", (), [{}] * 3),
        ("unsupervised", (), [{}] * 3),
        ("fixed", ("face_mask",), [{"face_mask": 0.1}] * 3),
        ("decayed", ("face_mask",), [{"face_mask": 0.1}, {"face_mask": 0.05}, {"face_mask": 0.0}]),
    ],
)
def test_a_mask_needs_faces_where_it_learns_from_them(mask: Any, needs: Any, weights: Any) -> None:
    one = UniAVGen(SITE, mask=mask)
    assert (one.face is None) == (mask == "none") and one.needs == needs
    assert [one.weights(progress) for progress in (0.0, 0.5, 1.0)] == weights
    awake(one)
    losses = one("before", seen(one, PART, streams(PART), extras=faces(PART))).losses
    assert (losses or {}).keys() == set(needs)


@torch.no_grad()
def test_a_given_video_is_read_by_the_audio_and_masked_for_itself() -> None:
    """It arrives detached, so as another tensor than the stream; the updates are the same."""
    one, x = awake(UniAVGen(SITE, window=1)), streams(PART)
    plain, given = seen(one, PART, x), seen(one, PART, x)._replace(source=x.map(Tensor.clone))
    for a, b in zip(one("before", plain).add, one("before", given).add, strict=True):
        assert torch.equal(a, b)


def test_what_it_cannot_take_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no checks
    for given, said in (
        ({"window": -1}, "UniAVGen's window is -1; it must be a whole number of at least 0"),
        ({"pictures": "next"}, "UniAVGen's pictures is 'next'; it must be between, frame, all"),
        ({"mask": "faces"}, "UniAVGen's mask is 'faces'; it must be none, unsupervised, fixed, decayed"),
        ({"mask_weight": -0.1}, "UniAVGen's mask_weight is -0.1"),
    ):
        with pytest.raises(ValueError, match=said):
            UniAVGen(SITE, **given)
