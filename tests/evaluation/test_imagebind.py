"""IB-Score: the towers against the reference's output, the preprocessing against loops and other libraries."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ccl.evaluation.dsp.fbank import fbank
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.imagebind import (
    IBScore,
    audio_clips,
    clip_pictures,
    clip_starts,
    clipped,
    resize_bilinear,
    streamed,
    three_crops,
    vision_clips,
)
from ccl.evaluation.nets.imagebind import Attention, ImageBind, Tower, ours
from ccl.evaluation.pictures import MEAN, STD, resize_bicubic
from ccl.media import Clip
from ccl.weights import catalogue as weights

DATA = Path(os.environ.get("CCL_TEST_DATA", ""))
needs_data = pytest.mark.skipif(not os.environ.get("CCL_TEST_DATA"), reason="CCL_TEST_DATA is not set")


def fill(net: nn.Module) -> nn.Module:
    """The weights that the golden outputs were made with."""
    spec = importlib.util.spec_from_file_location("fill", DATA / "golden" / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net.load_state_dict(module.fill_state_dict(net.state_dict()))
    return net.eval()


def film(
    seconds: float = 5.0, fps: float = 24.0, size: tuple[int, int] = (40, 56), *, seed: int = 0, rate: int = 16_000
) -> Film:
    """Noise, each picture different."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (round(seconds * fps), *size, 3), dtype=np.uint8)
    sound = (0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)
    return Film(Clip(video, sound, fps, rate))


@pytest.fixture(scope="module")
def tiny() -> ImageBind:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ImageBind(Tower(32, 1, 2), Tower(24, 1, 2), 16)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.2)
    return net.eval()


def metric(net: ImageBind, **settings: Any) -> IBScore:
    score = IBScore(**settings)
    vars(score)["net"] = net  # in place of the published weights
    return score


# Network --------------------------------------------------------------------------------------------------------------


@needs_data
def test_both_towers_give_what_the_reference_gives() -> None:
    net = fill(ImageBind(Tower(128, 2, 4), Tower(96, 2, 4), 64))
    rng = np.random.default_rng(0)
    inputs = {
        "vision": rng.standard_normal((1, 6, 3, 2, 224, 224), dtype=np.float32),
        "audio": rng.standard_normal((1, 3, 1, 128, 204), dtype=np.float32),
    }
    golden = np.load(DATA / "golden" / "imagebind_tiny.npz")
    for kind, clips in inputs.items():
        with torch.inference_mode():
            out = net(kind, torch.from_numpy(clips))
        np.testing.assert_allclose(out, golden[kind], rtol=1e-4, atol=1e-4 * np.abs(golden[kind]).max())


@needs_data
def test_huge_has_the_published_keys_and_shapes() -> None:
    published = json.loads((DATA / "spec" / "keys" / "imagebind_huge_keys.json").read_text())
    with torch.device("meta"):
        net = ImageBind()
    assert len(published) == 1311
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == ours(published)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == pytest.approx(720e6, rel=0.01)


def test_other_modalities_are_ignored_and_nothing_else_is(tiny: ImageBind, tmp_path: Path) -> None:
    state = dict(tiny.state_dict())
    other = {"modality_trunks.text.blocks.0.norm_1.weight": torch.ones(3), "modality_heads.imu.3.weight": torch.ones(3)}
    tiny.load_state_dict(ours(state | other))
    for wrong in (
        state | {"modality_trunks.audio.blocks.9.norm_1.weight": torch.ones(24)},
        state | {"text": torch.ones(1)},
        {key: value for key, value in state.items() if not key.endswith("bias_k")},
    ):
        with pytest.raises(RuntimeError, match=r"Unexpected|Missing"):
            tiny.load_state_dict(ours(wrong))
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is not imagebind_huge"):
        _ = IBScore(weights=tmp_path / "other.pth").net


@pytest.mark.parametrize("bias_kv", [False, True])
def test_attention_is_that_of_torch(bias_kv: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(24, 3, add_bias_kv=bias_kv, batch_first=True)
    mine = Attention(24, 3, bias_kv=bias_kv)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(mine(x), theirs(x, x, x, need_weights=False)[0], rtol=1e-4, atol=1e-5)


# Sound ----------------------------------------------------------------------------------------------------------------


def test_clips_span_the_film() -> None:
    assert [float(s) for s in clip_starts(8.0, 3)] == [0, 3, 6]
    assert [float(s) for s in clip_starts(10.0, 5)] == [0, 2, 4, 6, 8]
    assert [float(s) for s in clip_starts(1.2, 3)] == [0, 0, 0]


def test_spectrograms_are_padded_before_they_are_normalised() -> None:
    clips = audio_clips(0.1 * torch.randn(80_000))
    assert clips.shape == (3, 1, 128, 204)
    torch.testing.assert_close(clips[..., 198:], torch.full((3, 1, 128, 6), 4.268 / 9.138))
    assert (audio_clips(torch.randn(8_000))[..., 48:] == clips[..., -1:, -1:]).all()  # half a second is 48 frames


def test_overlapping_clips_lose_their_mean_one_after_the_other() -> None:
    sound = torch.linspace(-0.5, 0.9, 56_000)  # 3.5 s: clips at 0, .75 and 1.5 s
    before, left = sound.clone(), sound.clone()
    for number, start in enumerate((0, 12_000, 24_000)):
        left[start : start + 32_000] -= left[start : start + 32_000].mean()
        bands = (fbank(left[start : start + 32_000]).T + 4.268) / 9.138
        torch.testing.assert_close(audio_clips(sound)[number, 0, :, :198], bands)
    torch.testing.assert_close(sound, before, rtol=0, atol=0)


def test_a_sound_below_one_frame_has_no_score() -> None:
    with pytest.raises(Unscorable, match=r"0\.020 s"):
        audio_clips(torch.zeros(320))


# Pictures -------------------------------------------------------------------------------------------------------------


def test_streamed_pictures_lie_two_seconds_apart() -> None:
    # ffmpeg's fps filter rounds a picture's time to the nearest tick: the one at n is the last before 2 n + 1 s.
    shown = film(9.0, 10.0)
    pictures, pairs = streamed(shown)
    expected = resize_bicubic(torch.from_numpy(shown.video[[9, 29, 49, 69]]).permute(0, 3, 1, 2), 224)
    assert torch.equal(pictures, expected)
    assert pairs.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert len(streamed(film(4.0, 24.0))[1]) == 1
    assert len(streamed(film(5.9, 25.0))[1]) == 1  # int(.5 * 5.9) = 2 pictures, although three ticks pass


def test_a_film_below_four_seconds_says_so() -> None:
    with pytest.raises(Unscorable, match=r"lasts 3\.92 s.*needs 4 s"):
        streamed(film(3.92, 25.0))
    assert clipped(film(3.92, 25.0))[1].shape == (5, 2)


@pytest.mark.parametrize(("count", "fps"), [(125, 25.0), (121, 24.0), (81, 16.0), (10, 25.0), (1, 25.0), (300, 29.97)])
def test_official_clips_are_first_and_last_of_their_range(count: int, fps: float) -> None:
    duration, expected = count / fps, []
    for i in range(5):
        start = max(duration - 2, 0) / 4 * i
        frames = list(range(math.ceil(fps * start), min(math.ceil(fps * (start + 2)), count)))
        kept = [int(x) for x in torch.linspace(0, len(frames) - 1, 2).long()]  # uniform_temporal_subsample
        expected.append([frames[k] for k in kept])
    assert clip_pictures(np.arange(count) / fps, count / fps).tolist() == expected


def test_official_pictures_are_those_of_their_pairs() -> None:
    shown = film(6.0, 10.0, (24, 32))
    pictures, pairs = clipped(shown)
    native = clip_pictures(np.arange(60) / 10, 6.0)
    assert pictures.shape == (10, 3, 224, 298) and pairs.shape == (5, 2)
    for (a, b), (i, j) in zip(pairs.tolist(), native.tolist(), strict=True):
        for mine, theirs in ((a, i), (b, j)):
            alone = torch.from_numpy(shown.video[[theirs]]).permute(0, 3, 1, 2) / 255.0
            torch.testing.assert_close(pictures[[mine]], resize_bilinear(alone))


def test_bicubic_is_pillows() -> None:
    ramp = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(ramp).resize((427, 480), Image.Resampling.BICUBIC))
    mine = resize_bicubic(torch.from_numpy(picture).permute(2, 0, 1)[None], 224)[0].permute(1, 2, 0)
    theirs = np.array(Image.fromarray(picture).resize((224, int(224 * 480 / 427)), Image.Resampling.BICUBIC))
    assert mine.shape == theirs.shape and mine.dtype == torch.uint8
    apart = np.abs(mine.numpy().astype(int) - theirs)  # both round twice, in fixed point
    assert apart.max() <= 2 and apart.mean() < 0.02


def test_bilinear_reads_four_pixels() -> None:
    picture = torch.rand(1, 3, 500, 300)
    mine = resize_bilinear(picture)
    assert mine.shape == (1, 3, math.floor(500 / 300 * 224), 224)
    for y, x in ((0, 0), (100, 17), (372, 223)):
        v, u = (y + 0.5) * 500 / 373 - 0.5, (x + 0.5) * 300 / 224 - 0.5
        value = torch.zeros(3)
        for j in (math.floor(v), math.floor(v) + 1):
            for i in (math.floor(u), math.floor(u) + 1):
                pixel = picture[0, :, min(max(j, 0), 499), min(max(i, 0), 299)]
                value += (1 - abs(v - j)) * (1 - abs(u - i)) * pixel
        torch.testing.assert_close(mine[0, :, y, x], value, rtol=1e-4, atol=1e-5)


def test_crops_are_both_ends_and_the_middle() -> None:
    wide = torch.arange(397.0).expand(1, 3, 224, 397)
    assert three_crops(wide)[:, 0, 0, 0, 0].tolist() == [0, 87, 173]  # ceil(173 / 2)
    assert three_crops(wide.transpose(2, 3))[:, 0, 0, 0, 0].tolist() == [0, 87, 173]
    assert three_crops(wide).shape == (3, 1, 3, 224, 224)


def test_a_clip_is_a_pair_of_pictures_in_one_crop() -> None:
    pictures = torch.randint(0, 256, (3, 3, 224, 300), dtype=torch.uint8)
    clips = vision_clips(pictures, torch.tensor([[0, 1], [1, 2]]))
    assert clips.shape == (6, 3, 2, 224, 224)
    for c in range(3):
        expected = (pictures[2, c, :, 38 : 38 + 224] / 255 - MEAN[c]) / STD[c]
        torch.testing.assert_close(clips[4, c, 1], expected)  # second pair, middle crop, second picture


# Metric ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", ["av-benchmark", "official"])
def test_the_score_is_the_cosine_of_mean_embeddings(tiny: ImageBind, convention: Any) -> None:
    shown = film(6.0)
    pictures, pairs = (streamed if convention == "av-benchmark" else clipped)(shown)
    with torch.inference_mode():
        video = tiny("vision", vision_clips(pictures, pairs)[None])[0].double()
        audio = tiny("audio", audio_clips(torch.tensor(shown.audio))[None])[0].double()
    expected = float(video @ audio / video.norm() / audio.norm())
    [result] = metric(tiny, convention=convention).score([shown])
    assert isinstance(result, Measured)
    assert result.values["ib_score"] == pytest.approx(expected, abs=1e-5)


def test_a_clip_scores_the_same_in_any_company(tiny: ImageBind) -> None:
    films = [film(4.2, seed=1), film(8.5, size=(60, 34), seed=2), film(2.0, seed=3), film(5.0, seed=4, rate=44_100)]
    together = metric(tiny).score(films)
    alone = [metric(tiny, chunk=1).score([one])[0] for one in films]
    assert isinstance(together[2], Failed) and "2.00 s" in together[2].reason
    for i in (0, 1, 3):
        a, b = together[i], alone[i]
        assert isinstance(a, Measured) and isinstance(b, Measured)
        assert a.values["ib_score"] == pytest.approx(b.values["ib_score"], abs=1e-5)
    assert len({result.values["ib_score"] for result in together if isinstance(result, Measured)}) == 3


def test_bf16_stays_near_fp32(tiny: ImageBind) -> None:
    scores = [metric(tiny, precision=p).score([film(5.0)])[0].values["ib_score"] for p in ("fp32", "bf16")]  # type: ignore[union-attr]
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


@pytest.mark.parametrize("lack", ["video", "audio"])
def test_a_film_without_one_stream_has_a_reason(tiny: ImageBind, lack: str) -> None:
    whole = film().clip
    clip = Clip(None if lack == "video" else whole.video, None if lack == "audio" else whole.audio, 24.0)
    [result] = metric(tiny).score([clip])
    assert isinstance(result, Failed) and result.reason == f"no {lack} stream"


@needs_data
def test_real_clips_have_a_score(tiny: ImageBind) -> None:
    talking, mute = (Film.read(DATA / "clips" / f"{name}.mp4") for name in ("ovi_two_men", "condfoley_tennis"))
    for convention in ("av-benchmark", "official"):
        [scored, dumb] = metric(tiny, convention=convention).score([talking, mute])
        assert isinstance(scored, Measured) and -1 <= scored.values["ib_score"] <= 1
        assert isinstance(dumb, Failed)


def test_missing_weights_are_said_with_their_licence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert "4.8 GB" in IBScore().missing() and "not for commercial use" in IBScore().missing()
    with pytest.raises(ValueError, match="ccl weights fetch imagebind"):
        IBScore().update([film()])
    given = tmp_path / "ib.pth"
    given.write_bytes(b"x")
    assert IBScore(weights=given).missing() == ""
    protocol = IBScore(weights=given, convention="official").protocol()
    assert protocol["weights"] == weights.sha256(given) and "NC" in protocol["licence"]
    assert json.loads(json.dumps(protocol)) == protocol
