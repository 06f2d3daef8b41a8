"""The dual-stream transformer: what routes, given streams, caches and absent streams may and may not change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ccl.grid import Grid
from ccl.interaction import CCA, TARP, Gate, NoInteraction, Site, UniAVGen
from ccl.model import DualStreamTransformer, WanStream
from ccl.types import ALONE, AV, CLOSED, OPEN, Route, Skip, View
from helpers import ROOT

GRID = Grid(frames=17, height=32, width=32)  # t_v 5, 2 x 2 tokens, t_a 21
PARTS = ROOT / "configs" / "interaction"
cca = partial(CCA, align=TARP("proportional"), num_context_audio=3, num_context_video=5)
gate = partial(Gate, align=TARP("proportional"))


def build(interaction=cca, **kwargs) -> DualStreamTransformer:
    return DualStreamTransformer(
        video=WanStream(48, 64, 16),
        audio=WanStream(32, 48, 6),
        layers=2,
        head_dim=16,
        text_dim=12,
        interaction=interaction,
        freq_dim=32,
        **kwargs,
    )


def randomised(interaction=cca, **kwargs) -> DualStreamTransformer:
    """No zero-initialised projection left, so that everything reaches the output."""
    torch.manual_seed(0)
    net = build(interaction, **kwargs)
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    return net


def inputs(batch: int = 2, seed: int = 1) -> tuple[AV, AV, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = AV(torch.randn(batch, 16, 5, 4, 4, generator=g), torch.randn(batch, 6, 21, generator=g))
    t = AV(torch.rand(batch, generator=g), torch.rand(batch, generator=g))
    return x, t, torch.randn(batch, 7, 12, generator=g)


def equal(a: AV, b: AV) -> bool:
    return torch.equal(a.video, b.video) and torch.equal(a.audio, b.audio)


def close(a: AV, b: AV) -> None:
    torch.testing.assert_close(tuple(a), tuple(b), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("interaction", [cca, gate, NoInteraction])
@pytest.mark.parametrize("route", [OPEN, CLOSED, Route(True, False)])
def test_step_zero_is_the_two_streams_alone(interaction, route: Route) -> None:
    net, alone = build(interaction), build(NoInteraction)
    for p in net.stream_parameters():
        nn.init.normal_(p, std=0.1)
    alone.load_state_dict(net.state_dict(), strict=False)
    x, t, text = inputs()
    assert equal(net(x, t, text, grid=GRID, view=View(route)).velocity, alone(x, t, text, grid=GRID).velocity)


@pytest.mark.parametrize("interaction", [cca, gate, NoInteraction])
def test_closed_route_ignores_the_other_stream(interaction) -> None:
    net, (x, t, text), (y, s, _) = randomised(interaction), inputs(), inputs(seed=2)
    ours = net(x, t, text, grid=GRID, view=ALONE).velocity
    assert torch.equal(
        ours.video, net(AV(x.video, y.audio), AV(t.video, s.audio), text, grid=GRID, view=ALONE).velocity.video
    )
    assert torch.equal(
        ours.audio, net(AV(y.video, x.audio), AV(s.video, t.audio), text, grid=GRID, view=ALONE).velocity.audio
    )
    a2v = net(x, t, text, grid=GRID, view=View(Route(a2v=True, v2a=False))).velocity
    assert torch.equal(ours.audio, a2v.audio)
    assert torch.equal(a2v.video, ours.video) == (interaction is NoInteraction)


@pytest.mark.parametrize("interaction", [cca, gate])
def test_an_absent_stream_changes_nothing_in_the_other(interaction) -> None:
    net, (x, t, text) = randomised(interaction).eval(), inputs()
    both = net(x, t, text, grid=GRID, view=ALONE).velocity
    video = net(AV(x.video, None), AV(t.video, None), text, grid=GRID, view=ALONE).velocity
    audio = net(AV(None, x.audio), AV(None, t.audio), text, grid=GRID, view=ALONE).velocity
    assert video.audio is None and audio.video is None
    assert torch.equal(video.video, both.video) and torch.equal(audio.audio, both.audio)


@pytest.mark.parametrize("detached", [AV(True, False), AV(False, True)])
def test_a_given_stream_gets_no_gradient(detached: AV) -> None:
    net, (x, t, text) = randomised(), inputs()
    out = net(x, t, text, grid=GRID, view=View(OPEN, detach=detached)).velocity
    kept, given = (out.audio, "video") if detached.video else (out.video, "audio")
    kept.square().mean().backward()
    assert all(
        p.grad is None for name, p in net.named_parameters() if f"{given}." in name and "interaction" not in name
    )


def test_without_a_given_stream_both_streams_get_gradients_from_one() -> None:
    net, (x, t, text) = randomised(), inputs()
    net(x, t, text, grid=GRID).velocity.video.square().mean().backward()
    # The last block's audio feed-forward reaches only the audio output.
    assert net.audio.patch_embedding.weight.grad is not None


@pytest.mark.parametrize("interaction", [cca, gate])
@pytest.mark.parametrize("route", [OPEN, CLOSED, Route(True, False), Route(False, True)])
def test_every_parameter_stays_in_use(interaction, route: Route) -> None:
    net, (x, t, text) = randomised(interaction), inputs()
    out = net(x, t, text, grid=GRID, view=View(route)).velocity
    (out.video.mean() + 0 * out.audio.mean()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("interaction", [cca, gate])
@pytest.mark.parametrize("routes", [(OPEN, CLOSED), (CLOSED, CLOSED, OPEN), (OPEN, CLOSED, OPEN)])
def test_batched_routes_equal_one_forward_each(interaction, routes) -> None:
    net, n = randomised(interaction).eval(), len(routes)
    x, t, text = inputs(2 * n)
    together = net(x, t, text, grid=GRID, view=[View(route) for route in routes]).velocity
    for i, route in enumerate(routes):
        part = slice(2 * i, 2 * i + 2)
        single = net(
            x.map(lambda z, p=part: z[p]), t.map(lambda z, p=part: z[p]), text[part], grid=GRID, view=View(route)
        ).velocity
        close(together.map(lambda z, p=part: z[p]), single)


def test_prepared_text_and_context_change_nothing() -> None:
    net, (x, t, text) = randomised().eval(), inputs()
    prepared = net.prepare(text)
    for view in (View(OPEN), ALONE, (View(OPEN), ALONE)):
        plain, cached = (net(x, t, words, grid=GRID, view=view).velocity for words in (text, prepared))
        assert equal(plain, cached)
    assert not prepared.blocks[0].text.video[0].requires_grad


def test_one_time_a_frame_equals_one_time_where_they_agree() -> None:
    net, (x, t, text) = randomised(), inputs()
    spread = AV(t.video[:, None].expand(-1, 5), t.audio[:, None].expand(-1, 21))
    close(net(x, spread, text, grid=GRID).velocity, net(x, t, text, grid=GRID).velocity)
    spread = AV(spread.video.clone().index_fill_(1, torch.tensor([0]), 0.0), spread.audio)
    assert not torch.allclose(net(x, spread, text, grid=GRID).velocity.video, net(x, t, text, grid=GRID).velocity.video)


def test_checkpointing_changes_neither_loss_nor_gradients() -> None:
    gradients = []
    for checkpointing in (False, True, "attention"):
        net, (x, t, text) = randomised(checkpointing=checkpointing), inputs()
        out = net(x, t, text, grid=GRID, view=View(Route(True, False), detach=AV(False, True))).velocity
        (out.video.square().mean() + 0 * out.audio.mean()).backward()
        gradients.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*gradients, strict=True))


@pytest.mark.parametrize(("checkpointing", "times"), [(False, 1), (True, 2), ("attention", 1)])
def test_attention_is_computed_again_where_its_output_is_not_kept(checkpointing: Any, times: int) -> None:
    class Calls(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
            return func(*args, **(kwargs or {}))

    net, (x, t, text) = randomised(checkpointing=checkpointing), inputs()
    with Calls() as forward:
        out = net(x, t, text, grid=GRID).velocity
        loss = out.video.square().mean() + out.audio.square().mean()
    with Calls() as backward:
        loss.backward()
    assert forward.count > 0 and forward.count + backward.count == times * forward.count


def test_meta_build_and_init_weights_give_the_weights_of_a_direct_build() -> None:
    torch.manual_seed(3)
    direct = build()
    with torch.device("meta"):
        late = build()
    late.to_empty(device="cpu")
    torch.manual_seed(3)
    late.init_weights()
    for (name, a), b in zip(direct.state_dict().items(), late.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    x, t, text = inputs()
    assert not late(x, t, text, grid=GRID).velocity.video.any()  # the head starts at zero


def test_cross_modal_and_stream_parameters_are_disjoint_and_complete() -> None:
    net = build()
    cross, stream = set(net.cross_modal_parameters()), set(net.stream_parameters())
    assert not cross & stream
    assert cross | stream == set(net.parameters())
    assert len(cross) > 0 and all("interaction" in n for n, p in net.named_parameters() if p in cross)


def test_bfloat16_autocast_stays_near_float32() -> None:
    net, (x, t, text) = randomised().eval(), inputs()
    exact = net(x, t, text, grid=GRID).velocity
    with torch.autocast("cpu", torch.bfloat16):
        near = net(x, t, text, grid=GRID).velocity
    for a, b in zip(near, exact, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() / b.norm() < 0.03


def test_sampling_then_training_shares_no_inference_tensors() -> None:
    net, (x, t, text) = randomised(), inputs()
    with torch.inference_mode():
        net(x, t, text, grid=GRID)
    net(x, t, text, grid=GRID).velocity.video.mean().backward()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, t: (AV(x.video[:, :3], x.audio), t, View(OPEN)), r"video latents have shape \(3, 5, 4, 4\)"),
        (lambda x, t: (AV(x.video, x.audio[..., :-1]), t, View(OPEN)), r"audio latents have shape \(6, 20\)"),
        (lambda x, t: (AV(x.video, None), AV(t.video, None), View(OPEN)), "lets a stream see one that is absent"),
        (lambda x, t: (AV(None, None), AV(None, None), ALONE), "both streams are absent"),
        (lambda x, t: (x, t, [View(OPEN)] * 3), "a batch of 2 does not divide into 3 views"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(change, message: str) -> None:
    x, t, text = inputs()
    x, t, views = change(x, t)
    with pytest.raises(ValueError, match=message):
        build()(x, t, text, grid=GRID, view=views)


def test_a_width_that_does_not_divide_into_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="the audio stream's width 40 is not a multiple of head_dim 16"):
        DualStreamTransformer(
            video=WanStream(48, 64, 16),
            audio=WanStream(40, 48, 6),
            layers=1,
            head_dim=16,
            text_dim=12,
            interaction=NoInteraction,
        )


@torch.no_grad()
def test_each_stream_has_heads_as_wide_as_it_says() -> None:
    """LTX-2's pictures have heads of 128, its sound of 64."""
    sizes = {"layers": 2, "text_dim": 12, "freq_dim": 32}
    net = DualStreamTransformer(
        video=WanStream(48, 64, 16, head_dim=16), audio=WanStream(32, 48, 6), head_dim=8, interaction=gate, **sizes
    )
    x, t, text = inputs()
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    out = net(x, t, text, grid=GRID, view=ALONE).velocity
    for name, head_dim, stream in (("video", 16, WanStream(48, 64, 16)), ("audio", 8, WanStream(32, 48, 6))):
        alone = DualStreamTransformer(**{name: stream}, head_dim=head_dim, **sizes)
        alone.load_state_dict({k: v for k, v in net.state_dict().items() if name in k.split(".")[:3]})
        given = [AV(**{"video": None, "audio": None, name: getattr(pair, name)}) for pair in (x, t)]
        assert torch.equal(getattr(alone(*given, text, grid=GRID).velocity, name), getattr(out, name))
    with pytest.raises(ValueError, match="the audio stream's width 40 is not a multiple of head_dim 16"):
        DualStreamTransformer(audio=WanStream(40, 48, 6, head_dim=16), head_dim=8, **sizes)


@pytest.mark.parametrize("size", [0, -1, 2**63])
@pytest.mark.parametrize("name", ["layers", "head_dim", "text_dim", "freq_dim", "patch"])
def test_a_number_that_no_network_can_have_is_told(name: str, size: int) -> None:
    """Without memory, as a plan builds it, a network of 10^9 layers would hardly end."""
    given = {"layers": 1, "head_dim": 16, "text_dim": 12, name: size}
    with pytest.raises(ValueError, match=f"^{name} is {size}; it must be a whole number from 1 to "):
        DualStreamTransformer(video=WanStream(48, 64, 16), **given)


@pytest.mark.parametrize("part", sorted(PARTS.glob("*.yaml")), ids=lambda p: p.stem)
def test_yaml_chooses_the_interaction_and_the_model_its_widths(part: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--net", type=Callable[[], DualStreamTransformer])
    body = "\n".join("    " + line for line in part.read_text().splitlines())
    config = f"""
class_path: ccl.model.DualStreamTransformer
init_args:
  video: {{width: 64, ffn: 64, channels: 16}}
  audio: {{width: 32, ffn: 32, channels: 6}}
  layers: 2
  head_dim: 16
  text_dim: 12
  interaction:
{body}
"""
    net = parser.instantiate(parser.parse_object({"net": yaml.safe_load(config)})).net()
    assert len(net.blocks) == 2
    shared = 0 if net.trunk is None else len(list(net.trunk.parameters()))
    each = [len(list(block.interaction.parameters())) for block in net.blocks]
    assert each[0] == each[1] and shared + sum(each) == len(list(net.cross_modal_parameters()))


# What forward promises in words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, t, text: (x.video, t, text), r"x is a Tensor; it must be AV\(video, audio\)"),
        (lambda x, t, text: (x, t.video, text), r"t is a Tensor; it must be AV"),
        (lambda x, t, text: (AV(None, None), t, text), "both streams are absent"),
        (lambda x, t, text: (AV(x.video[:, :15], x.audio), t, text), r"video .* \(15, 5, 4, 4\); .* \(16, 5, 4, 4\)"),
        (lambda x, t, text: (AV(x.video, x.audio[..., 1:]), t, text), r"audio .* \(6, 20\); the grid .* \(6, 21\)"),
        (lambda x, t, text: (AV(x.video[:, :, 1:], x.audio), t, text), r"video .* \(16, 4, 4, 4\)"),
        (lambda x, t, text: (AV(x.video, x.audio[:1]), t, text), "2 clips of video and 1 of audio"),
        (lambda x, t, text: (x, AV(t.video, None), text), r"t\.audio is None, but there are audio latents"),
        (lambda x, t, text: (x, AV(t.video[:1], t.audio), text), r"t\.video has shape \(1,\); it must be \(2,\)"),
        (lambda x, t, text: (x, AV(t.video[:, None].repeat(1, 4), t.audio), text), r"t\.video .* or \(2, 5\)"),
        (lambda x, t, text: (x, AV(t.video[0], t.audio), text), r"t\.video has shape \(\)"),
        (lambda x, t, text: (x, t.map(lambda v: 1000 * v), text), r"t\.video is from .*from 0 .*divide by 1000"),
        (lambda x, t, text: (x, AV(t.video, t.audio - 2), text), r"t\.audio is from -"),
        (lambda x, t, text: (x, AV(t.video * float("nan"), t.audio), text), r"t\.video is from nan"),
        (lambda x, t, text: (x, t, text[..., 1:]), r"text has shape \(2, 7, 11\); states \(2, L, 12\)"),
        (lambda x, t, text: (x, t, text[:1]), r"text has shape \(1, 7, 12\)"),
        (lambda x, t, text: (x, t, text[0]), r"text has shape \(7, 12\)"),
        (lambda x, t, text: (x, t, "a cat"), r"text is a str; it must be states"),
        (lambda x, t, text: (x.map(torch.Tensor.double), t, text), r"float64 .* weights float32; .*net\.double\(\)"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_named_in_words(change, said: str) -> None:
    net = build()
    with pytest.raises(ValueError, match=said) as told:
        unwrap(DualStreamTransformer.forward)(net, *change(*inputs()), grid=GRID)  # without the tests' own checks
    assert "\n" not in str(told.value)


def test_text_prepared_by_another_network_is_refused() -> None:
    x, t, text = inputs()
    shallow = DualStreamTransformer(video=WanStream(48, 64, 16), layers=1, head_dim=16, text_dim=12)
    with pytest.raises(ValueError, match="prepared by 1 blocks; this network has 2"):
        build()(x, t, shallow.prepare(text), grid=GRID)


def test_times_at_the_ends_and_of_each_frame_are_taken() -> None:
    net, (x, _, text) = build(), inputs()
    for video, audio in (
        (torch.zeros(2), torch.ones(2)),
        (torch.rand(2, 5), torch.rand(2, 21)),
        (torch.rand(2, 1),) * 2,
    ):
        net(x, AV(video, audio), text, grid=GRID)


def test_nobody_looks_at_times_while_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x, t, text = inputs()
    build()(x, t.map(lambda v: 1000 * v), text, grid=GRID)


@pytest.mark.parametrize("stream", ["video", "audio"])
def test_a_stream_alone_needs_neither_interaction_nor_route(stream: str) -> None:
    config = {"video": WanStream(48, 64, 16), "audio": WanStream(32, 48, 6)}
    torch.manual_seed(0)
    net = DualStreamTransformer(**{stream: config[stream]}, layers=2, head_dim=16, text_dim=12, freq_dim=32)
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    x, t, text = inputs()
    only = {
        name: AV(*(v if s == stream else None for s, v in zip(AV._fields, pair, strict=True)))
        for name, pair in (("x", x), ("t", t))
    }
    out = net(only["x"], only["t"], text, grid=GRID).velocity
    both = build(NoInteraction)
    both.load_state_dict(both.state_dict() | net.state_dict())
    theirs = both(x, t, text, grid=GRID, view=ALONE).velocity
    assert torch.equal(getattr(out, stream), getattr(theirs, stream))
    with pytest.raises(ValueError, match="two streams need an `interaction`"):
        DualStreamTransformer(**config, layers=2, head_dim=16, text_dim=12)


# float64 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interaction", [cca, gate])
def test_float64_is_computed_in_float64(interaction) -> None:
    """A difference quotient is true to 1e-8 in float64 alone: a step of 1e-6 leaves nothing of float32's digits."""
    net = randomised(interaction).double()
    x, t, text = inputs()
    x, t, text = x.map(torch.Tensor.double), t.map(torch.Tensor.double), text.double()
    out = net(x, t, text, grid=GRID).velocity
    assert out.video.dtype == out.audio.dtype == torch.float64
    direction = torch.randn(x.audio.shape, generator=torch.Generator().manual_seed(3)).double()

    def loss(step: float) -> torch.Tensor:
        return net(AV(x.video, x.audio + step * direction), t, text, grid=GRID).velocity.video.square().mean()

    with torch.no_grad():
        quotient = (loss(1e-6) - loss(-1e-6)) / 2e-6
    given = x.audio.clone().requires_grad_()
    net(AV(x.video, given), t, text, grid=GRID).velocity.video.square().mean().backward()
    torch.testing.assert_close((given.grad * direction).sum(), quotient, rtol=1e-6, atol=1e-12)
    # Held against itself after a detour through float32, rounding apart.
    single = randomised(interaction)
    close(AV(*(v.float() for v in out)), single(*(inputs()[:2]), inputs()[2], grid=GRID).velocity)


def test_rotation_of_float64_is_the_definition() -> None:
    from ccl.nn.rope import angles, rotary, rotate

    x = torch.randn(1, 5, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    angle = angles(torch.arange(5, dtype=torch.float64), 8)
    turned = rotate(x, rotary(angle, torch.float64))
    naive = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.exp(1j * angle)[None, :, None]
    torch.testing.assert_close(turned, torch.view_as_real(naive).flatten(-2), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("name", "size"), [("width", 0), ("ffn", -(2**63)), ("ffn", 2**63), ("channels", 10**12)])
def test_a_size_that_no_network_can_have_is_told(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"a stream's {name} is {size}; it must be a whole number from 1 to 1,048,576"):
        WanStream(**{"width": 16, "ffn": 32, "channels": 4, name: size})


# Streams of unequal depth, and what a view leaves out -----------------------------------------------------------------


def test_a_stream_that_ends_before_the_other_passes_the_last_blocks_as_it_is() -> None:
    """MOVA's sound has 30 blocks, its pictures 40."""
    sizes = {"head_dim": 16, "text_dim": 12, "freq_dim": 32}
    torch.manual_seed(0)
    net = DualStreamTransformer(
        video=WanStream(48, 64, 16), audio=WanStream(32, 48, 6, layers=1), layers=3, interaction=cca, **sizes
    )
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    assert [block.audio is None for block in net.blocks] == [False, True, True]
    assert [bool(list(block.interaction.parameters())) for block in net.blocks] == [True, False, False]
    x, t, text = inputs()
    out = net(x, t, text, grid=GRID, view=ALONE).velocity
    assert equal(out, net(x, t, net.prepare(text), grid=GRID, view=ALONE).velocity)
    one = DualStreamTransformer(
        video=WanStream(48, 64, 16), audio=WanStream(32, 48, 6), layers=1, interaction=cca, **sizes
    )
    one.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith(("blocks.1.", "blocks.2."))})
    assert torch.equal(one(x, t, text, grid=GRID, view=ALONE).velocity.audio, out.audio)
    alone = DualStreamTransformer(video=WanStream(48, 64, 16), layers=3, **sizes)
    with torch.no_grad():  # after the first block nothing of the sound is left to see
        other = AV(x.video, torch.randn_like(x.audio))
        assert not torch.equal(net(x, t, text, grid=GRID).velocity.video, net(other, t, text, grid=GRID).velocity.video)
        for block in net.blocks:
            block.interaction, block.at = NoInteraction(Site(48, 32, AV(16, 16))), ()
        alone.load_state_dict(net.state_dict(), strict=False)
        seen = alone(AV(x.video, None), AV(t.video, None), text, grid=GRID, view=ALONE).velocity.video
        assert torch.equal(net(x, t, text, grid=GRID, view=ALONE).velocity.video, seen)
    with pytest.raises(ValueError, match="the audio stream has 4 layers, more than the network's 3"):
        DualStreamTransformer(audio=WanStream(32, 48, 6, layers=4), layers=3, **sizes)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_chunk_that_skips_a_block_is_a_network_without_it_and_the_others_are_as_they_were(layer: int) -> None:
    net, (x, t, text) = randomised().eval(), inputs(4)
    skipped = View(OPEN, skip=frozenset([Skip("block", frozenset([layer]))]))
    together = net(x, t, text, grid=GRID, view=[View(OPEN), skipped]).velocity
    without = DualStreamTransformer(
        video=WanStream(48, 64, 16), audio=WanStream(32, 48, 6), layers=1, head_dim=16, text_dim=12, freq_dim=32,
        interaction=cca,
    ).eval()  # fmt: skip
    state = {k.replace(f"blocks.{1 - layer}.", "blocks.0."): v for k, v in net.state_dict().items()
             if not k.startswith(f"blocks.{layer}.")}  # fmt: skip
    without.load_state_dict(state)
    first, second = ((x.map(lambda z, p=p: z[p]), t.map(lambda z, p=p: z[p]), text[p]) for p in (slice(2), slice(2, 4)))
    close(together.map(lambda z: z[:2]), net(*first, grid=GRID).velocity)
    close(together.map(lambda z: z[2:]), without(*second, grid=GRID).velocity)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1])
def test_a_chunk_that_skips_a_block_has_no_losses_of_it(layer: int) -> None:
    net, (x, t, text) = randomised(partial(UniAVGen, window=1)).eval(), inputs(4)
    skipped = View(OPEN, skip=frozenset([Skip("block", frozenset([layer]))]))
    faces = net.interaction.example(GRID, 4)["face_mask"]
    together = net(x, t, text, grid=GRID, view=[View(OPEN), skipped], extras={"face_mask": faces}).losses["face_mask"]
    for part, view in ((slice(2), View(OPEN)), (slice(2, 4), skipped)):
        given = x.map(lambda z, part=part: z[part]), t.map(lambda z, part=part: z[part]), text[part]
        alone = net(*given, grid=GRID, view=view, extras={"face_mask": faces[part]}).losses["face_mask"]
        torch.testing.assert_close(together[part], alone)


def test_self_attention_that_is_skipped_gives_each_token_its_own_value() -> None:
    net, (x, t, text) = randomised().eval(), inputs(4)
    view = View(OPEN, skip=frozenset([Skip("self_attention", frozenset([1]))]))
    together = net(x, t, text, grid=GRID, view=[View(OPEN), view]).velocity
    first, second = ((x.map(lambda z, p=p: z[p]), t.map(lambda z, p=p: z[p]), text[p]) for p in (slice(2), slice(2, 4)))
    close(together.map(lambda z: z[:2]), net(*first, grid=GRID).velocity)
    for stream in net.blocks[1].streams:
        own = stream.self_attn
        own.forward = lambda x, *_, own=own: own.o(own.v(x))
    close(together.map(lambda z: z[2:]), net(*second, grid=GRID).velocity)
