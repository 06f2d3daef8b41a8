"""LAION's aesthetic score: one layer on CLIP's embeddings, by random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ccl.evaluation.metrics import Aesthetic
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.clip import squared
from ccl.evaluation.pictures import normalised
from ccl.media import Clip

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small CLIP whose embeddings are as wide as ViT-L/14's, and a layer."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = SIZES | {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = SIZES | {"image_size": 64, "patch_size": 16}
    net = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768))
    folder = tmp_path_factory.mktemp("clip")
    (folder / "config.json").write_text(json.dumps(net.config.to_dict()))
    save_file({k: v + 0.2 * torch.randn_like(v) for k, v in net.state_dict().items() if v.is_floating_point()},
              folder / "model.safetensors")  # fmt: skip
    torch.save({"weight": torch.randn(1, 768), "bias": torch.tensor([5.0])}, folder / "layer.pth")
    return {"clip": folder, "weights": folder / "layer.pth"}


def film(seed: int, count: int = 5, size: tuple[int, int] = (80, 100)) -> Clip:
    return Clip(np.random.default_rng(seed).integers(0, 255, (count, *size, 3), np.uint8), None)


def scores(metric: Aesthetic, *clips: Clip) -> list[float]:
    results = metric.score(clips)
    assert all(isinstance(result, Measured) for result in results), results
    return [result.values["aesthetic"] for result in results if isinstance(result, Measured)]


def test_the_score_is_the_layers_of_each_normalised_embedding(drawn):
    metric, clip = Aesthetic(pictures=3, **drawn), film(0)
    [found] = scores(metric, clip)
    layer, total = torch.load(drawn["weights"], weights_only=True), 0.0
    for at in (0, 2, 4):
        picture = squared(torch.from_numpy(clip.video[at]).permute(2, 0, 1)[None], 64)
        seen = metric.clip.net.get_image_features(normalised(picture)).pooler_output[0]
        total += float(layer["weight"][0] @ (seen / seen.norm()) + layer["bias"]) / 3
    assert found == pytest.approx(total, abs=1e-5)


def test_a_batch_gives_what_single_clips_and_pictures_give(drawn):
    clips = [film(seed, 3 + seed, (70 + 9 * seed, 90)) for seed in range(3)]
    alone = [scores(Aesthetic(chunk=1, **drawn), clip)[0] for clip in clips]
    assert scores(Aesthetic(**drawn), *clips) == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 4) for score in alone}) == 3


def test_what_the_score_lacks_is_a_sentence(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert "`ccl weights fetch aesthetic`" in Aesthetic(clip=drawn["clip"]).missing()
    assert "`ccl weights fetch clip-large`" in Aesthetic(weights=drawn["weights"]).missing()
    torch.save({"weight": torch.zeros(1, 512), "bias": torch.zeros(1)}, other := tmp_path / "b32.pth")
    [result] = Aesthetic(weights=other, clip=drawn["clip"]).score([film(0)])
    assert isinstance(result, Failed) and "not the aesthetic predictor's weights" in result.reason


def test_a_clip_without_pictures_has_a_reason(drawn):
    [result] = Aesthetic(**drawn).score([Clip(None, np.zeros(99, np.float32))])
    assert result == Failed("no video stream")
