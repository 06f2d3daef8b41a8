"""MUSIQ: patches and network against pyiqa's, VBench's protocol against a loop, odd pictures, weights."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccl.evaluation.metrics import MUSIQ
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.musiq import fitted
from ccl.evaluation.nets import musiq
from ccl.evaluation.nets.musiq import patches
from ccl.media import Clip
from helpers import TESTS

GOLDEN: dict[str, dict[str, Any]] = json.loads((TESTS / "golden/musiq.json").read_text())["pictures"]


def filled(net: nn.Module) -> dict[str, Tensor]:
    """Weights, each drawn from the crc32 of its key: those that the golden numbers were made with."""
    state = {}
    for key, value in net.state_dict().items():
        drawn = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(value.shape), dtype=np.float32)
        if key.endswith("bias"):
            drawn = 0.1 * drawn
        elif value.ndim == 1:
            drawn = 1 + 0.1 * drawn
        elif key.endswith("weight"):
            drawn = drawn * (2 / np.prod(drawn.shape[1:])) ** 0.5
        state[key] = torch.from_numpy(np.asarray(drawn, np.float32))
    return state


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a smaller network's weights."""
    torch.save(filled(musiq.MUSIQ(24, 2, 48)), path := tmp_path_factory.mktemp("musiq") / "small.pth")
    return path


def drawn(height: int, width: int, count: int = 1, seed: int = 0) -> Clip:
    return Clip(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8), None)


def pictures(clip: Clip) -> Tensor:
    assert clip.video is not None
    return torch.from_numpy(clip.video).permute(0, 3, 1, 2)


def scores(metric: MUSIQ, *clips: Clip) -> list[float]:
    results = metric.score(clips)
    assert all(isinstance(result, Measured) for result in results), results
    return [result.values["musiq"] for result in results if isinstance(result, Measured)]


# Against pyiqa --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_patches_their_places_and_their_sizes_are_pyiqas(name: str) -> None:
    golden = GOLDEN[name]
    seen = patches(pictures(drawn(*golden["size"])))
    assert seen.place.tolist() == golden["places"]
    assert seen.scale.bincount(minlength=3).tolist() == golden["scales"] and (seen.scale.diff() >= 0).all()
    found = seen.pixels.flatten()[::9973]
    # Of [-1, 1]; processors round where a bicubic pixel lies differently, by up to 2.2e-6.
    torch.testing.assert_close(found, torch.tensor(golden["pixels"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("classes", "of"), [(1, "score"), (10, "of ten")])
def test_scores_are_pyiqas_though_it_hides_patches_that_we_leave_out(classes: int, of: str) -> None:
    net = musiq.MUSIQ.of(filled(musiq.MUSIQ(classes=classes)))
    golden = {name: one for name, one in GOLDEN.items() if of in one}
    with torch.inference_mode():
        found = {name: float(net(patches(pictures(drawn(*one["size"]))))) for name, one in golden.items()}
    assert found == pytest.approx({name: one[of] for name, one in golden.items()}, abs=1e-5)


# The metric -----------------------------------------------------------------------------------------------------------


def test_the_score_is_the_mean_of_the_pictures_own(small: Path) -> None:
    net, clip, each = musiq.MUSIQ.of(torch.load(small, weights_only=True)), drawn(30, 90, 3), []
    for picture in pictures(clip).float():
        shorter = F.interpolate(picture[None], (int(40 / 90 * 30), 40), mode="bilinear").round()
        each.append(float(net(patches(shorter.to(torch.uint8)))))
    for count, right in ((1, each[0]), (2, (each[0] + each[2]) / 2), (0, sum(each) / 3)):
        assert scores(MUSIQ(pictures=count, longest=40, weights=small), clip) == [pytest.approx(right, abs=1e-5)]


def test_a_batch_gives_what_single_clips_and_pictures_give(small: Path) -> None:
    clips = [drawn(20 + 9 * seed, 90, 2, seed) for seed in range(3)]
    alone = [scores(MUSIQ(pictures=2, chunk=1, weights=small), clip)[0] for clip in clips]
    assert scores(MUSIQ(pictures=2, chunk=2, weights=small), *clips) == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 3) for score in alone}) == 3


def test_a_picture_is_brought_to_vbenchs_size_where_it_is_larger() -> None:
    for size, longest, right in (
        ((480, 768), 512, (320, 512)),
        ((1920, 1080), 512, (512, 288)),
        ((2000, 901), 512, (512, 230)),
        ((512, 48), 512, (512, 48)),
        ((1080, 2048), 0, (1080, 2048)),
        ((3, 2000), 512, (1, 512)),  # VBench has 0 here, and stops
    ):
        assert fitted(torch.zeros(1, 3, *size, dtype=torch.uint8), longest).shape[-2:] == right


def test_pictures_of_any_size_have_a_score(small: Path) -> None:
    for size in ((1, 1), (2000, 10), (2, 2000), (7, 5)):
        assert np.isfinite(scores(MUSIQ(pictures=1, weights=small), drawn(*size)))


def test_what_musiq_lacks_is_a_sentence(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert "musiq_spaq_ckpt-358bb6af.pth" in MUSIQ().missing()
    assert "`ccl weights fetch musiq-ava`" in MUSIQ(checkpoint="musiq-ava").missing()
    torch.save({"weight": torch.zeros(1, 768)}, other := tmp_path / "other.pth")
    [result] = MUSIQ(weights=other).score([drawn(8, 8)])
    assert isinstance(result, Failed) and "not MUSIQ's weights" in result.reason and str(other) in result.reason
    [result] = MUSIQ(weights=small).score([Clip(None, np.zeros(99, np.float32))])
    assert result == Failed("no video stream")
    with pytest.raises(ValueError, match="pictures is -1"):
        MUSIQ(pictures=-1)


# What it can tell -----------------------------------------------------------------------------------------------------


def scene(seed: int) -> list[np.ndarray]:
    """Discs in all colours: as drawn, blurred, and with noise."""
    draw = np.random.default_rng(seed)
    picture = np.full((64, 96, 3), draw.integers(0, 256, 3), np.uint8)
    for _ in range(30):
        place, colour = (int(draw.integers(96)), int(draw.integers(64))), draw.integers(0, 256, 3).tolist()
        cv2.circle(picture, place, int(draw.integers(3, 16)), colour, -1)
    noise = draw.normal(0, 30, picture.shape)
    return [picture, cv2.GaussianBlur(picture, (0, 0), 1.5), np.clip(picture + noise, 0, 255).astype(np.uint8)]


@pytest.mark.slow
def test_taught_on_a_few_scenes_it_tells_blur_and_noise_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The published weights are not here; a small network that sees few patches stands for them.
    monkeypatch.setattr(musiq, "SIDES", (32, 64))
    torch.manual_seed(0)
    net = musiq.MUSIQ(96, 1, 192)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for step in range(30):
        shown = np.stack([picture for seed in range(4 * step, 4 * step + 4) for picture in scene(seed)])
        clean, *worse = net(patches(pictures(Clip(shown, None)))).reshape(4, 3).T
        loss = F.softplus(torch.stack(worse) - clean).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(net.state_dict(), path := tmp_path / "taught.pth")
    clips = [Clip(picture[None], None) for seed in range(1000, 1012) for picture in scene(seed)]
    found = np.reshape(scores(MUSIQ(pictures=1, weights=path), *clips), (12, 3))
    assert (found[:, :1] > found[:, 1:]).mean(0).min() > 0.9
