"""LTX-2's cross-attention against its definition written out, and against diffusers' own block and embeddings."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import yaml
from diffusers.models.transformers.transformer_ltx2 import (
    LTX2AdaLayerNormSingle,
    LTX2AudioVideoRotaryPosEmbed,
    LTX2VideoTransformerBlock,
)
from torch import Tensor, nn

from ccl.cli.check import inlined
from ccl.cli.parts import build
from ccl.grid import Grid
from ccl.interaction import LTX2Attention, Seen, Site
from ccl.interaction.ltx2 import CrossTimes, Modulation, Reader, middles
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.stream import WanStream
from ccl.nn.layers import EPS
from ccl.planning.count import by_part
from ccl.planning.follow import Counting
from ccl.types import ALONE, AV, CLOSED, OPEN, Route, View
from helpers import ROOT

GRID = Grid(frames=17, fps=24.0, height=64, width=128, latent_rate=25.0, stride_time=8, stride_space=32)
WIDTH, HEADS = AV(24, 16), 2  # 3 frames of 1 x 2 tokens, 17 of sound
SITE = Site(*WIDTH, head_dim=AV(8, 8))
CPU = torch.device("cpu")
STACK = ROOT / "configs" / "model" / "ltx2.yaml"
A2V, V2A = Route(True, False), Route(False, True)
TIMES = AV(torch.tensor([[0.0, 0.7, 0.7], [0.2, 0.2, 0.2]]), torch.tensor([[0.5], [0.9]]))


def awake(module: Any, seed: int = 0) -> Any:
    """In float64, with random weights everywhere."""
    g = torch.Generator().manual_seed(seed)
    for p in module.double().parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.3
    return module


def streams(seed: int = 1) -> AV[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return AV(*(torch.randn(2, n, d, generator=g, dtype=torch.float64)
                for n, d in zip((GRID.s_v, GRID.t_a), WIDTH, strict=True)))  # fmt: skip


def seen(one: LTX2Attention, x: AV, route: Route = OPEN, times: AV = TIMES) -> Seen:
    return Seen(x, x, route, times, one.layout(GRID, CPU), shared=awake(one.trunk(), 7)(times))


# The definition


def moment(stream: str, token: int) -> float:
    """The middle of a token, in seconds: of a codec with strides of 8 pictures and of 4 frames of a spectrogram."""
    n, rate = (8, GRID.fps) if stream == "video" else (4, 16_000 / 160)
    i = token // (GRID.h * GRID.w) if stream == "video" else token
    return (max(n * i + 1 - n, 0) + n * i + 1) / 2 / rate


def rms(x: Tensor, weight: float | Tensor = 1.0) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def turned(x: Tensor, head: int, heads: int, at: float) -> list[float]:
    """One head of one token: number i with number i + p / 2, by the frequency that is the head's own."""
    half = len(x) // 2
    pairs = []
    for i in range(half):
        place = (head * half + i) / (heads * half - 1)  # from 0 to 1 over all heads
        angle = 10_000**place * math.pi / 2 * (2 * at / 20 - 1)
        pairs.append(complex(x[i], x[i + half]) * complex(math.cos(angle), math.sin(angle)))
    return [z.real for z in pairs] + [z.imag for z in pairs]


def naive(reader: Reader, x: Tensor, y: Tensor, names: tuple[str, str]) -> Tensor:
    """What modulated tokens of one clip read of the other stream's, query by query and key by key."""
    q, k, v = rms(reader.q(x), reader.norm_q.weight), rms(reader.k(y), reader.norm_k.weight), reader.v(y)
    p = q.shape[1] // reader.heads
    rows = []
    for i in range(len(x)):
        parts = []
        for h in range(reader.heads):
            part, scores = slice(h * p, (h + 1) * p), []
            mine = turned(q[i, part], h, reader.heads, moment(names[0], i))
            for j in range(len(y)):
                theirs = turned(k[j, part], h, reader.heads, moment(names[1], j))
                scores.append(sum(a * b for a, b in zip(mine, theirs, strict=True)) / math.sqrt(p))
            weights = [math.exp(s - max(scores)) for s in scores]
            parts.append(sum(w / sum(weights) * value for w, value in zip(weights, v[:, part], strict=True)))
        rows.append(reader.o(torch.cat(parts)))
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("head_dim", [None, 4])
def test_each_stream_reads_the_other_as_a_double_loop_does(head_dim: int | None) -> None:
    """The second clip, whose video frames are at 0.2 and whose sound is at 0.9."""
    one, x = awake(LTX2Attention(SITE, head_dim=head_dim, audio_stride=4)), streams()
    add, trunk = one("after", seen(one, x)).add, awake(one.trunk(), 7)

    def embedded(times: Any, t: Tensor) -> Tensor:
        angles = [1000 * float(t) * 10_000 ** (-i / 128) for i in range(128)]
        waves = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        return times.layers(torch.tensor([waves], dtype=torch.float64)).unflatten(-1, (times.rows, -1))[0]

    video = one.video.rows[:4] + embedded(trunk.video, TIMES.video[1, 0])
    audio = one.audio.rows[:4] + embedded(trunk.audio, TIMES.audio[1, 0])
    for direction, first in (("a2v", 0), ("v2a", 2)):
        x_v = rms(x.video[1]) * (1 + video[first]) + video[first + 1]
        x_a = rms(x.audio[1]) * (1 + audio[first]) + audio[first + 1]
        if direction == "a2v":
            expected = naive(one.a2v, x_v, x_a, ("video", "audio"))
            gate, ours = one.video.rows[4] + embedded(trunk.a2v_gate, TIMES.audio[1, 0])[0], add.video[1]
        else:
            expected = naive(one.v2a, x_a, x_v, ("audio", "video"))
            gate, ours = one.audio.rows[4] + embedded(trunk.v2a_gate, TIMES.video[1, 0])[0], add.audio[1]
        torch.testing.assert_close(ours, gate * expected, rtol=0, atol=1e-9)


# Diffusers


def published() -> LTX2VideoTransformerBlock:
    """A block that does nothing but the cross-attention: what else it adds is gated, or projected, to nothing."""
    block = LTX2VideoTransformerBlock(
        dim=WIDTH.video, num_attention_heads=3, attention_head_dim=8, cross_attention_dim=8,
        audio_dim=WIDTH.audio, audio_num_attention_heads=HEADS, audio_attention_head_dim=8,
        audio_cross_attention_dim=8, rope_type="split",
    )  # fmt: skip
    torch.manual_seed(0)
    for p in block.parameters():
        nn.init.normal_(p, std=0.3)
    silent = (block.scale_shift_table, block.audio_scale_shift_table,
              *block.attn2.to_out.parameters(), *block.audio_attn2.to_out.parameters())  # fmt: skip
    for p in silent:
        nn.init.zeros_(p)
    return block.eval()


def copied(block: LTX2VideoTransformerBlock) -> LTX2Attention:
    one = LTX2Attention(SITE, audio_stride=4)
    one.video.rows.data = block.video_a2v_cross_attn_scale_shift_table.data
    one.audio.rows.data = block.audio_a2v_cross_attn_scale_shift_table.data
    for ours, theirs in ((one.a2v, block.audio_to_video_attn), (one.v2a, block.video_to_audio_attn)):
        for name, there in {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}.items():
            getattr(ours, name).load_state_dict(theirs.get_submodule(there).state_dict())
        ours.norm_q.weight.data, ours.norm_k.weight.data = theirs.norm_q.weight.data, theirs.norm_k.weight.data
    return one.eval()


def theirs(stream: str) -> tuple[LTX2AudioVideoRotaryPosEmbed, Tensor]:
    """Their rotary embedding, and the bounds in seconds of what it turns."""
    sizes = {"dim": WIDTH.audio, "modality": stream, "rope_type": "split", "num_attention_heads": HEADS}
    if stream == "video":
        embed = LTX2AudioVideoRotaryPosEmbed(**sizes)
        bounds = embed.prepare_video_coords(2, GRID.t_v, GRID.h, GRID.w, CPU, fps=GRID.fps)[:, :1]
    else:
        embed = LTX2AudioVideoRotaryPosEmbed(scale_factors=(4,), **sizes)
        bounds = embed.prepare_audio_coords(2, GRID.t_a, CPU)
    return embed, bounds


def table(rope: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Ours, (f, n, 2), as theirs: cosines and sines (b, h, l, n / h)."""
    whole = rope.repeat_interleave(GRID.h * GRID.w, 0) if tokens == GRID.s_v else rope
    cos, sin = whole.unflatten(1, (HEADS, -1)).permute(3, 1, 0, 2)[:, None].expand(2, 2, -1, -1, -1)
    return cos, sin


def test_a_block_at_its_size_has_diffusers_own_parameters_and_a_norm_before_the_text() -> None:
    """Theirs has no weights there; what else is missing is told at the head of the stack."""
    node = inlined(yaml.safe_load(STACK.read_text()), STACK)["model"]["net"]
    node["init_args"]["layers"] = 1
    with torch.device("meta"):
        net = build(DualStreamTransformer, node, STACK.name)
        block = LTX2VideoTransformerBlock(
            dim=4096, num_attention_heads=32, attention_head_dim=128, cross_attention_dim=4096,
            audio_dim=2048, audio_num_attention_heads=32, audio_attention_head_dim=64, audio_cross_attention_dim=2048,
        )  # fmt: skip
    theirs, ours = (sum(p.numel() for p in one.parameters()) for one in (block, net.blocks[0]))
    assert ours - theirs == 2 * (4096 + 2048)
    assert net.head_dim == (128, 64) and net.interaction.a2v.heads == 32


@torch.no_grad()
def test_a_block_gives_what_diffusers_own_gives_with_the_same_weights_and_embeddings() -> None:
    block, g = published(), torch.Generator().manual_seed(3)
    one, x = copied(block), streams().map(Tensor.float)
    clips, frames = 2, AV(GRID.t_v, GRID.t_a)
    rows = AV.zip(lambda f, d: torch.randn(clips, f, 4, d, generator=g), frames, WIDTH)
    gates = WIDTH.map(lambda d: torch.randn(clips, 1, d, generator=g))
    tokens = AV.zip(lambda r, n: r.repeat_interleave(n, 1).flatten(2), rows, AV(GRID.h * GRID.w, 1))
    silent, text = [torch.zeros(clips, 1, 6 * d) for d in WIDTH], torch.zeros(clips, 3, 8)
    rope = one.layout(GRID, CPU)
    ours = one("after", Seen(x, x, OPEN, layout=rope, shared=AV.zip(Modulation, rows, gates))).add

    def out(**turn: Any) -> AV[Tensor]:
        return AV(*block(*x, text, text, *silent, *tokens, *gates, **turn))

    turn = {"ca_video_rotary_emb": table(rope.video, GRID.s_v), "ca_audio_rotary_emb": table(rope.audio, GRID.t_a)}
    expected = out(**turn)
    for before, add, after in zip(x, ours, expected, strict=True):
        assert (after - before).abs().max() > 0.1
        torch.testing.assert_close(before + add, after, rtol=1e-5, atol=1e-5)
    # With their own tables too, whose fastest angles are reckoned in float32, of thousands of turns.
    (video, seconds), (audio, sound) = theirs("video"), theirs("audio")
    for before, add, after in zip(
        x, ours, out(ca_video_rotary_emb=video(seconds), ca_audio_rotary_emb=audio(sound)), strict=True
    ):
        torch.testing.assert_close(before + add, after, rtol=0, atol=5e-3)


@torch.no_grad()
def test_moments_and_rotary_tables_are_diffusers_own() -> None:
    rope = LTX2Attention(SITE, audio_stride=4).layout(GRID, CPU)
    where = AV(middles(GRID.t_v, 8, GRID.fps).repeat_interleave(GRID.h * GRID.w), middles(GRID.t_a, 4, 100.0))
    for name in AV._fields:
        embed, bounds = theirs(name)
        torch.testing.assert_close(getattr(where, name).float(), bounds[0, 0].mean(-1), rtol=1e-6, atol=1e-7)
        for ours, their in zip(table(getattr(rope, name), len(bounds[0, 0])), embed(bounds), strict=True):
            torch.testing.assert_close(ours, their, rtol=0, atol=3e-3)  # their angles run to 1.6e4 in float32


@torch.no_grad()
def test_times_are_embedded_as_diffusers_does() -> None:
    trunk = awake(CrossTimes(WIDTH)).float()
    out = trunk(TIMES)
    level = AV(TIMES.video.amax(1, keepdim=True), TIMES.audio)
    for ours, times, t, count in (
        (out.video.rows, trunk.video, TIMES.video, 4),
        (out.audio.rows, trunk.audio, TIMES.audio, 4),
        (out.video.gate, trunk.a2v_gate, level.audio, 1),
        (out.audio.gate, trunk.v2a_gate, level.video, 1),
    ):
        width = ours.shape[-1]
        their = LTX2AdaLayerNormSingle(width, num_mod_params=count)
        layers = (their.emb.timestep_embedder.linear_1, their.emb.timestep_embedder.linear_2, their.linear)
        for layer, own in zip(layers, times.layers[::2], strict=True):
            layer.load_state_dict(own.state_dict())
        expected = their(1000 * t.flatten(), hidden_dtype=torch.float32)[0]
        torch.testing.assert_close(ours.flatten(), expected.flatten(), rtol=1e-4, atol=1e-4)


# Routes, and what is left out


@torch.no_grad()
def test_a_closed_direction_adds_nothing_and_the_other_one_is_the_same() -> None:
    one, x = awake(LTX2Attention(SITE)).eval(), streams()
    both, a2v, v2a = (one("after", seen(one, x, route)).add for route in (OPEN, A2V, V2A))
    assert torch.equal(a2v.video, both.video) and a2v.audio is None
    assert torch.equal(v2a.audio, both.audio) and v2a.video is None
    assert one("after", seen(one, x, CLOSED)).add == AV(None, None)


@torch.no_grad()
def test_the_gate_reads_the_other_s_noise_and_the_rows_the_own_frames() -> None:
    """A first frame that is given changes the modulation of its own tokens alone, and no gate."""
    trunk = awake(CrossTimes(WIDTH))
    given, plain = trunk(TIMES), trunk(AV(torch.tensor([[0.7, 0.7, 0.7], [0.2, 0.2, 0.2]]), TIMES.audio))
    assert torch.equal(given.audio.gate, plain.audio.gate) and torch.equal(given.audio.rows, plain.audio.rows)
    same = (given.video.rows == plain.video.rows).all(-1).all(-1)
    assert same.tolist() == [[False, True, True], [True, True, True]]
    later = trunk(AV(TIMES.video, TIMES.audio + 0.05))
    assert torch.equal(later.video.rows, given.video.rows) and not torch.equal(later.video.gate, given.video.gate)
    assert torch.equal(later.audio.gate, given.audio.gate)
    alone = trunk(AV(TIMES.video, None))
    assert alone.audio is None and alone.video.gate is None and torch.equal(alone.video.rows, given.video.rows)


@torch.no_grad()
def test_what_is_told_of_attention_sums_to_one_over_the_other_stream() -> None:
    one, x = awake(LTX2Attention(SITE)), streams()
    told = one.attention("after", seen(one, x, A2V))
    assert told.audio is None and told.video.other.shape == (2, HEADS, GRID.s_v, GRID.t_a)
    torch.testing.assert_close(told.video.other.sum(-1), torch.ones(2, HEADS, GRID.s_v, dtype=torch.float64))


def network(depth: int, **kwargs: Any) -> Any:
    return DualStreamTransformer(
        video=WanStream(WIDTH.video, 32, 4),
        audio=WanStream(WIDTH.audio, 24, 6),
        **{"layers": depth, "head_dim": 8, "text_dim": 8, "freq_dim": 16},
        interaction=partial(LTX2Attention, **kwargs),
    )


def inputs() -> tuple[AV, AV, Tensor]:
    g = torch.Generator().manual_seed(1)
    z = AV(torch.randn(2, 4, GRID.t_v, GRID.latent_height, GRID.latent_width, generator=g),
           torch.randn(2, 6, GRID.t_a, generator=g))  # fmt: skip
    return z, AV(torch.tensor([0.3, 0.8]), torch.tensor([0.5, 0.1])), torch.randn(2, 5, 8, generator=g)


@torch.no_grad()
def test_passes_that_see_differently_go_together_as_one_by_one() -> None:
    net, (z, t, text) = network(2).eval(), inputs()
    for i, p in enumerate(net.parameters()):
        nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(i))
    together = net(z, t, text, grid=GRID, view=[View(V2A), View()]).velocity
    both, half, apart = (net(z, t, text, grid=GRID, view=view).velocity for view in (View(), View(V2A), ALONE))
    for ours, first, second in zip(together, half, both, strict=True):
        torch.testing.assert_close(ours, torch.stack([first[0], second[1]]))
    torch.testing.assert_close(half.video, apart.video)
    assert (both.video - apart.video).abs().max() > 1e-3 < (half.audio - apart.audio).abs().max()


@torch.no_grad()
def test_the_plan_counts_products_of_the_inner_width_in_both_directions() -> None:
    with Counting() as counter:
        network(2, head_dim=4)(*inputs(), grid=GRID)
    counted, clips, blocks, inner = by_part(counter, [1, 1]), 2, 2, WIDTH.audio
    v, a, (d_v, d_a) = GRID.s_v, GRID.t_a, WIDTH
    for part, (n, w), (m, y) in (("a2v", (v, d_v), (a, d_a)), ("v2a", (a, d_a), (v, d_v))):
        assert counted[f"interaction {part}"].linear == blocks * clips * 2 * (2 * n * w * inner + 2 * m * y * inner)


def test_arguments_that_cannot_be_are_told() -> None:
    with pytest.raises(ValueError, match="head_dim is 7; its numbers turn in pairs, so it must be even"):
        LTX2Attention(SITE, head_dim=7)
    with pytest.raises(ValueError, match="the audio stream's width 16 is not a multiple of LTX2Attention's head_dim 6"):
        LTX2Attention(SITE, head_dim=6)
    with pytest.raises(ValueError, match=r"LTX2Attention's max_seconds is 0\.0; it must be a number of at least"):
        LTX2Attention(SITE, max_seconds=0.0)
