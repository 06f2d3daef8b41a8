"""The video stream is Wan's: diffusers' WanTransformer3DModel with the same weights is the oracle, for each release."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from ccl.grid import Grid
from ccl.interaction import CCA, TARP, NoInteraction
from ccl.model import DualStreamTransformer, OviAudioStream, Shown, WanImageStream, WanStream
from ccl.model.load import load_stream, match
from ccl.types import ALONE, AV, CLOSED, OPEN, View
from helpers.wan_streams import GRID, alone, awake, inputs, ours, ours_i2v, ours_ovi, relative, shown, wan, wan_i2v

WIDE = Grid(frames=13, height=128, width=96, stride_space=16)  # the same tokens under Wan2.2's codec


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
    """Wan2.2-TI2V: 48 channels, a clean first frame, diffusers' expand_timesteps."""
    theirs, net = wan(channels=48), ours(channels=48)
    load_stream(net, theirs.state_dict())
    x, text = inputs(48)
    t = torch.rand(2, WIDE.t_v)
    t[:, 0] = 0
    per_token = (1000 * t).repeat_interleave(WIDE.h * WIDE.w, 1)
    expected = theirs(x, per_token, text).sample
    assert relative(alone(net, x, t, text, WIDE), expected) < 1e-5


@torch.no_grad()
def test_image_stream_equals_diffusers_wan_i2v() -> None:
    theirs, net = wan_i2v(), ours_i2v()
    load_stream(net, theirs.state_dict())
    x, text = inputs(length=512)  # diffusers cuts the picture's tokens off by this length
    image, condition = shown(x)
    t = torch.tensor([0.25, 0.75])
    expected = theirs(torch.cat([x, condition], 1), 1000 * t, text, image.states).sample
    assert relative(alone(net, x, t, text, extras={"image": image}), expected) < 1e-5
    other = Shown(image.latents, torch.randn_like(image.states))
    assert relative(alone(net, x, t, text, extras={"image": other}), expected) > 1e-4


@torch.no_grad()
def test_a_prepared_picture_gives_what_an_unprepared_one_gives_in_every_pass() -> None:
    net = awake(ours_i2v())
    x, text = inputs()
    image, _ = shown(x)
    t = torch.tensor([0.25, 0.75])
    one = alone(net, x, t, text, extras={"image": image})
    twice = net.prepare(text.repeat(2, 1, 1), extras={"image": Shown(*(torch.cat([z, z]) for z in image))})
    torch.testing.assert_close(alone(net, x.repeat(2, 1, 1, 1, 1), t.repeat(2), twice), one.repeat(2, 1, 1, 1, 1))


def test_a_network_that_is_shown_a_picture_asks_for_one() -> None:
    net, (x, text) = ours_i2v(), inputs()
    image, _ = shown(x)
    t = torch.tensor([0.25, 0.75])
    with pytest.raises(ValueError, match="always shown a first picture"):
        alone(net, x, t, text)
    with pytest.raises(ValueError, match=r"states have shape \(2, 6, 20\); \(2, 7, 20\) is needed"):
        alone(net, x, t, text, extras={"image": Shown(image.latents, image.states[:, 1:])})
    with pytest.raises(ValueError, match=r"latents have shape .* is needed"):
        alone(net, x, t, text, extras={"image": Shown(image.latents[:, 1:], image.states)})


def test_the_sound_of_a_network_that_is_shown_a_picture_needs_none() -> None:
    net, (_, text) = awake(ours_i2v()), inputs()
    out = net(AV(None, torch.randn(2, 4, GRID.t_a)), AV(None, torch.rand(2)), text, grid=GRID, view=ALONE).velocity
    assert out.video is None and out.audio.shape == (2, 4, GRID.t_a)


def test_gradients_equal_diffusers_wan() -> None:
    from ccl.model.keys import to_ours

    theirs, net = wan(), ours()
    load_stream(net, theirs.state_dict())
    x, text = inputs()
    t = torch.tensor([0.25, 0.75])
    theirs(x, 1000 * t, text).sample.square().mean().backward()
    alone(net, x, t, text).square().mean().backward()
    parameters = dict(net.named_parameters())
    for key, p in theirs.named_parameters():
        mine = parameters[to_ours(key)]
        assert p.grad is not None and mine.grad is not None
        torch.testing.assert_close(mine.grad, p.grad, rtol=1e-3, atol=1e-6 + 1e-4 * float(p.grad.abs().max()), msg=key)


# Ovi's audio stream, held against its definition written out


def naive_audio(net: DualStreamTransformer, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """Ovi's audio tower in one go, as its authors wrote it: channel-last, complex RoPE on a share of the head."""
    F, a, p = torch.nn.functional, net.audio, net.head_dim.audio

    def conv(w: nn.Conv1d, z: Tensor) -> Tensor:  # a sum over taps
        taps = w.weight.shape[-1]
        padded = F.pad(z, (0, 0, taps // 2, taps // 2))
        y = sum(padded[:, k : k + z.shape[1]] @ w.weight[..., k].T for k in range(taps))
        return y if w.bias is None else y + w.bias

    first, mlp = a.patch_embedding[0], a.patch_embedding[2]
    z = F.silu(conv(first, x.transpose(1, 2)))
    z = conv(mlp.w2, F.silu(conv(mlp.w1, z)) * conv(mlp.w3, z))

    half = net.audio.freq_dim // 2
    angle = 1000 * t.double()[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    e = a.time_embedding(torch.cat([angle.cos(), angle.sin()], 1).float())
    e0 = a.time_projection(e).unflatten(1, (6, -1))
    words = a.text_embedding(text)

    turning = p - 4 * (p // 6)
    freqs = 0.19676 / 10_000.0 ** (torch.arange(0, turning, 2).double() / turning)
    table = torch.polar(torch.ones(1, dtype=torch.float64), torch.outer(torch.arange(x.shape[-1]).double(), freqs))

    def rope(y: Tensor) -> Tensor:
        c = torch.view_as_complex(y.double().unflatten(-1, (-1, 2)))
        c = torch.cat([c[..., : turning // 2] * table[:, None], c[..., turning // 2 :]], -1)
        return torch.view_as_real(c).flatten(-2).float()

    def attend(part: Any, q_in: Tensor, kv_in: Tensor, turn: Any) -> Tensor:
        q, k, v = (
            y.unflatten(-1, (-1, p)) for y in (part.norm_q(part.q(q_in)), part.norm_k(part.k(kv_in)), part.v(kv_in))
        )
        weights = torch.einsum("bqhd,bkhd->bhqk", turn(q), turn(k)).div(p**0.5).softmax(-1)
        return part.o(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))

    def norm(y: Tensor) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], eps=1e-6)

    for block in net.blocks:
        b = block.audio
        m = (b.modulation + e0)[:, :, None].unbind(1)
        y = norm(z) * (1 + m[1]) + m[0]
        z = z + m[2] * attend(b.self_attn, y, y, rope)
        z = z + attend(b.cross_attn, b.norm3(z), words, lambda y: y)
        z = z + m[5] * b.ffn(norm(z) * (1 + m[4]) + m[3])
    shift, scale = (a.head.modulation + e[:, None]).unbind(1)
    return a.head.head(norm(z) * (1 + scale[:, None]) + shift[:, None]).transpose(1, 2)


@torch.no_grad()
def test_ovi_s_audio_stream_is_what_its_authors_wrote() -> None:
    net = awake(ours_ovi(OviAudioStream(32, 32, 4, kernel=7, hidden=40)))
    x, t = torch.randn(2, 4, GRID.t_a), torch.tensor([0.25, 0.75])
    _, text = inputs()
    out = net(AV(None, x), AV(None, t), text, grid=GRID, view=ALONE).velocity.audio
    assert relative(out, naive_audio(net, x, t, text)) < 1e-5


def test_ovi_s_factor_is_that_of_duration_and_its_inner_width_that_of_its_files() -> None:
    from ccl.interaction.align import audio_positions

    grid = Grid(frames=121, fps=24.0)
    torch.testing.assert_close(audio_positions(grid, 0.19676), audio_positions(grid, "duration"), rtol=1e-5, atol=0)
    with torch.device("meta"):
        net = DualStreamTransformer(audio=OviAudioStream(3072, 14336, 20), layers=1, head_dim=128, text_dim=4096)
    assert net.audio.patch_embedding[2].w1.weight.shape == (8192, 3072, 7)
    with pytest.raises(ValueError, match="kernel is 4; it must be odd"):
        OviAudioStream(3072, 14336, 20, kernel=4)


# Stage 2 begins where the streams are


@torch.no_grad()
def test_step_0_of_stage_2_is_the_two_pretrained_streams() -> None:
    def cca(widths: Any) -> CCA:
        return CCA(widths, TARP("proportional"))

    theirs, voice = wan(), awake(ours(), seed=3)
    net = ours(interaction=cca)
    load_stream(net, theirs.state_dict())
    report = load_stream(
        net,
        {k.replace("audio.", ""): v for k, v in voice.state_dict().items() if "audio." in k},
        "audio",
        source="stage 1",
    )
    assert {name for name in report.new if "interaction" not in name} == {n for n in report.new if "video" in n}
    x, text = inputs()
    sound, t = torch.randn(2, 4, GRID.t_a), torch.tensor([0.25, 0.75])
    seen = theirs(x, 1000 * t, text).sample
    heard = voice(AV(None, sound), AV(None, t), text, grid=GRID, view=ALONE).velocity.audio
    for route in (OPEN, CLOSED):
        out = net(AV(x, sound), AV(t, t), text, grid=GRID, view=View(route)).velocity
        assert relative(out.video, seen) < 1e-5
        torch.testing.assert_close(out.audio, heard, rtol=0, atol=0)


# Full size, on the meta device


@pytest.mark.parametrize(
    ("heads", "ffn", "layers", "channels", "image", "keys", "billions"),
    [
        (12, 8960, 30, 16, False, 825, 1.4190),
        (40, 13824, 40, 16, False, 1095, 14.2885),
        (40, 13824, 40, 16, True, 1303, 16.3949),
        (24, 14336, 30, 48, False, 825, 5.00),
    ],
    ids=["t2v-1.3b", "t2v-14b", "i2v-14b", "ti2v-5b"],
)
def test_every_key_of_a_release_has_its_place(
    heads: int, ffn: int, layers: int, channels: int, image: bool, keys: int, billions: float
) -> None:
    width = 128 * heads
    more: dict[str, Any] = {"image_dim": 1280, "added_kv_proj_dim": width} if image else {}
    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=heads,
            ffn_dim=ffn,
            num_layers=layers,
            in_channels=36 if image else channels,
            out_channels=channels,
            **more,
        )
        net = DualStreamTransformer(
            video=(WanImageStream if image else WanStream)(width, ffn, channels),
            audio=WanStream(128, 128, 20),
            layers=layers,
            head_dim=128,
            text_dim=4096,
            interaction=NoInteraction,
        )
    shapes = {key: tuple(p.shape) for key, p in theirs.state_dict().items()}
    report = match(net, shapes, "it").check()
    assert len(report.loaded) == len(shapes) == keys
    assert report.unexpected == report.missing == ()
    assert sum(p.numel() for p in theirs.parameters()) / 1e9 == pytest.approx(billions, abs=5e-3)
