"""LTX-2's rule: by hand, against its formula written out, and against diffusers' guider and its rescaling."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccl.guidance import LTX2Guidance, check_passes, guided
from ccl.model import DualStreamTransformer
from ccl.types import ALONE, AV, CLOSED, NEGATIVE, OPEN, POSITIVE, Pass, Scale, Skip, View
from helpers.fakes import make_net
from helpers.guiding import GRID, FakeNet, inputs

T = 0.4
RULE = LTX2Guidance(Scale(3.0, 7.0), Scale(1.0, 0.5), Scale(2.0, 3.0), Scale(0.7, 0.4), layer=2)
PERTURBED = View(OPEN, skip=frozenset({Skip("self_attention", frozenset({2}))}))
FOUR = {
    "pred_cond": Pass(POSITIVE, View(OPEN)),
    "pred_uncond": Pass(NEGATIVE, View(OPEN)),
    "pred_cond_stg": Pass(POSITIVE, PERTURBED),
    "pred_cond_modality": Pass(POSITIVE, ALONE),
}


def predictions() -> tuple[AV[Any], AV[Any], dict[Pass, AV[Any]]]:
    """Latents, times at which nothing is given, and a velocity of each pass, each clip of another spread."""
    x, _, _ = inputs(batch=3)
    x = x.map(lambda z: z * torch.tensor([0.5, 1.0, 3.0]).reshape(-1, *[1] * (z.ndim - 1)))
    return x, x.map(lambda z: torch.full((len(z),), T)), {one: x.map(torch.randn_like) for one in FOUR.values()}


def test_four_passes_weigh_what_the_formula_says():
    weights = AV(5.0, 9.5), AV(-2.0, -6.0), AV(-1.0, -0.5), AV(-1.0, -2.0)
    assert RULE.passes(OPEN, T) == dict(zip(FOUR.values(), weights, strict=True))
    # Where the task is closed already, the pass without the other stream is the conditional one.
    assert len(RULE.passes(CLOSED, T)) == 3
    assert LTX2Guidance(Scale(1.0, 1.0), Scale(0.0, 0.0), Scale(1.0, 1.0)).passes(OPEN, T) == {
        Pass(POSITIVE, View(OPEN)): AV(1.0, 1.0)
    }


def test_a_case_reckoned_by_hand():
    """One clip of two numbers, c = (1, 3), and 0 from the other passes: p = 4 c, and spreads are as 1 to 4."""
    rule = LTX2Guidance(Scale(2.0, 2.0), Scale(1.0, 1.0), Scale(2.0, 2.0), Scale(0.5, 1.0))
    x, half = torch.tensor([[[2.0, 4.0]]]), torch.tensor([0.5])
    weights = rule.passes(OPEN, 0.5)
    clean = {one: torch.zeros(1, 1, 2) for one in weights} | {FOUR["pred_cond"]: torch.tensor([[[1.0, 3.0]]])}
    v = {one: AV((x - p) / 0.5, (x - p) / 0.5) for one, p in clean.items()}
    out = rule.combine(v, weights, AV(x, x), 0.5, AV(half, half)).map(lambda v: x - 0.5 * v)
    torch.testing.assert_close(out.video, torch.tensor([[[2.5, 7.5]]]))  # 4 (0.5 / 4 + 0.5) c
    torch.testing.assert_close(out.audio, torch.tensor([[[1.0, 3.0]]]))  # 4 / 4 c


def test_it_combines_as_diffusers_guider_does():
    guider = pytest.importorskip("diffusers.guiders.ltx2_guidance").LTX2Guidance
    x, times, v = predictions()
    out = RULE.combine(v, RULE.passes(OPEN, T), x, T, times)
    for i in range(2):
        text, stg, modal, phi = (s.pair[i] for s in (RULE.text, RULE.perturbed, RULE.modal, RULE.rescale))
        theirs = guider(guidance_scale=text, stg_scale=stg, modality_scale=modal, guidance_rescale=phi)
        clean = {name: x[i] - T * v[one][i] for name, one in FOUR.items()}
        torch.testing.assert_close(x[i] - T * out[i], theirs.forward(**clean).pred, rtol=1e-5, atol=1e-5)


def test_a_velocity_is_that_of_the_formula_and_costs_one_forward_of_four_passes():
    x, times, texts = inputs()
    times = times.map(lambda told: torch.full_like(told, T))
    net = FakeNet()
    out = guided(net, RULE, OPEN, texts, grid=GRID)(x, times, T)
    assert net.forwards == 1
    assert len(net.prepared) == 2

    def clean(text: str, view: View) -> AV[Any]:
        return AV.zip(lambda z, v: z - T * v, x, net(x, times, [texts[text]], grid=GRID, view=[view]).velocity)

    reads = ("positive", View()), ("negative", View()), ("positive", PERTURBED), ("positive", ALONE)
    c, u, perturbed, alone = (clean(*one) for one in reads)
    for i in range(2):
        text, stg, modal, phi = (s.pair[i] for s in (RULE.text, RULE.perturbed, RULE.modal, RULE.rescale))
        for row in range(len(x[i])):  # one clip at a time
            each = [p[i][row] for p in (c, u, perturbed, alone)]
            p = each[0] + sum(w * (each[0] - one) for w, one in zip((text - 1, stg, modal - 1), each[1:], strict=True))
            p = p * (phi * each[0].std() / p.std() + 1 - phi)
            torch.testing.assert_close(x[i][row] - T * out[i][row], p)


def test_a_clip_is_the_same_beside_another_of_another_spread():
    x, times, v = predictions()
    together = RULE.combine(v, RULE.passes(OPEN, T), x, T, times)
    for row in range(3):
        own = {one: each.map(lambda z, row=row: z[row : row + 1]) for one, each in v.items()}
        alone = RULE.combine(
            own, RULE.passes(OPEN, T), x.map(lambda z, row=row: z[row : row + 1]), T, times.map(lambda t: t[:1])
        )
        torch.testing.assert_close(AV(*(z[row : row + 1] for z in together)), alone)


def test_given_frames_keep_the_conditional_velocity_and_no_clip_comes_out_as_no_number():
    x, times, _ = inputs()
    v = {one: x.map(torch.randn_like) for one in FOUR.values()}
    out = RULE.combine(v, RULE.passes(OPEN, T), x, T, times)
    assert torch.equal(out.video[:, :, 0], v[FOUR["pred_cond"]].video[:, :, 0])  # told 0
    flat = x.map(torch.zeros_like)
    still = RULE.combine(dict.fromkeys(v, flat), RULE.passes(OPEN, T), flat, T, times)
    assert all((z == 0).all() for z in still)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"text": Scale(0.5, 3.0)}, r"text\.video is 0\.5; it must be a number of at least 1"),
        ({"perturbed": Scale(1.0, -1.0)}, r"perturbed\.audio is -1\.0; it must be a number of at least 0"),
        ({"rescale": Scale(0.7, 1.5)}, r"rescale\.audio is 1\.5; it must be a number from 0 to 1"),
        ({"layer": -1}, r"layer is -1; it must be a whole number of at least 0"),
    ],
)
def test_strengths_that_might_leave_nothing_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        LTX2Guidance(**wrong)


def test_a_network_that_is_not_so_deep_is_told():
    net: DualStreamTransformer = make_net(layers=2).eval()
    with pytest.raises(ValueError, match="guidance LTX2Guidance skips layer 2; this network has 2, counted from 0"):
        check_passes(RULE, list(RULE.passes(OPEN, T)), net)
