"""AudioBox-Aesthetics: the networks against the reference's output and loops; windows, weights and layouts."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.audiobox import RATE, WINDOW, AudioBox, Checkpoint, read_checkpoint, windows
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.nets.audiobox import AXES, Aesthetics
from ccl.evaluation.nets.wavlm import Attention, Norm, WavLM, buckets, lengths
from ccl.media import Clip

DATA = Path(os.environ.get("CCL_TEST_DATA", ""))
needs_data = pytest.mark.skipif(not os.environ.get("CCL_TEST_DATA"), reason="CCL_TEST_DATA is not set")

SETTINGS = {"proj_num_layer": 3, "proj_ln": True, "nth_layer": 3}  # of the tiny network, which has two layers
TRANSFORM = {axis: {"mean": 5.0 + i, "std": 1.0 + i / 10} for i, axis in enumerate(AXES)}
RAW = dict.fromkeys(AXES, (0.0, 1.0))


# Parity: the published size -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> Checkpoint:
    """The weights that the golden outputs were made with, and no scaling of the ratings."""
    spec = importlib.util.spec_from_file_location("fill", DATA / "golden" / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keys = json.loads((DATA / "spec" / "keys" / "aes_keys.json").read_text())
    assert len(keys) == 324
    state = module.fill_state_dict({key: torch.empty(size) for key, size in keys.items()})
    return Checkpoint(state, {"proj_num_layer": 5, "proj_ln": True}, RAW, "32")


@needs_data
@pytest.mark.parametrize("name", [pytest.param("full", marks=pytest.mark.slow), "half"])
def test_ratings_are_those_of_the_reference(golden: Checkpoint, name: str) -> None:
    noise = torch.from_numpy((np.random.default_rng(0).standard_normal((1, 1, WINDOW)) * 0.1).astype(np.float32))[0]
    expected = json.loads((DATA / "golden" / "aes_fwd.json").read_text())
    net = golden.network()  # loads strictly, every published key
    valid = torch.arange(WINDOW)[None] < {"full": WINDOW, "half": WINDOW // 2}[name]
    with torch.inference_mode():
        ratings = net(noise * valid, valid)[0]
    close(ratings, [expected[name][axis][0] for axis in AXES])


@pytest.mark.slow
@needs_data
def test_speech_is_rated_as_the_reference_does(golden: Checkpoint) -> None:
    expected = json.loads((DATA / "golden" / "aes_jfk.json").read_text())
    metric = with_checkpoint(AudioBox(), golden)
    film = Film.read(DATA / "clips" / "jfk.flac")
    [result] = metric.score([film])
    assert isinstance(result, Measured)
    whole = [np.average(expected["raw"]["32"][axis], weights=expected["weights"]) for axis in AXES]
    close(torch.tensor([result.values[axis.lower()] for axis in AXES]), whole, 3e-4)  # resampled in float64 here
    last = film.sound(RATE)[WINDOW:]  # 1 s, in bf16
    half = with_checkpoint(AudioBox(precision="bf16"), golden)
    with torch.inference_mode():
        ratings = half.rate(F.pad(torch.tensor(last), (0, WINDOW - len(last)))[None], torch.tensor([len(last)]))[0]
    for axis, rating in zip(AXES, ratings.tolist(), strict=True):
        assert rating == pytest.approx(expected["raw"]["bf16"][axis][1], abs=0.03)


def close(ratings: Tensor, expected: list[float], tolerance: float = 1e-4) -> None:
    """Relative to the ratings' size: one that is close to zero is the difference of larger terms."""
    error = np.abs(ratings.numpy() - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"{error:.2e}"


# WavLM ----------------------------------------------------------------------------------------------------------------


def tiny(seed: int = 0) -> Aesthetics:
    """A network of random weights whose ratings differ from sound to sound."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Aesthetics(**SETTINGS, wavlm=WavLM(32, 2, 2, 48, 16))
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.3)
    return net.eval()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_frames_come_every_20_ms() -> None:
    assert lengths(WINDOW) == [31999, 15999, 7999, 3999, 1999, 999, 499]
    assert lengths(400)[-1] == 1 and lengths(399)[-1] == 0
    outputs, padding = tiny().wavlm_model(torch.from_numpy(noise(1.0))[None])
    assert len(outputs) == 3 and outputs[0].shape == (1, 49, 32) and not padding.any()
    with pytest.raises(ValueError, match="399 samples"):
        tiny().wavlm_model(torch.zeros(1, 399))


def test_what_is_cut_off_changes_nothing() -> None:
    """A padded sound is computed as far as it goes; beside a longer one it is computed whole."""
    encoder = tiny().wavlm_model
    sound = torch.zeros(2, 8000)
    sound[0], sound[1, :3000] = torch.from_numpy(noise(0.5)), torch.from_numpy(noise(3000 / RATE, 1)) + 0.05
    padding = torch.zeros(2, 8000, dtype=torch.bool)
    padding[1, 3000:] = True
    with torch.inference_mode():
        whole, silent = encoder(sound, padding)
        cut, rest = encoder(sound[1:], padding[1:])
    # 8000 samples are 24 frames, dealt out 333 each: 3000 reach into the tenth.
    assert silent.sum(1).tolist() == [0, 14] and rest.shape == (1, 10) and not rest.any()
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a[1:, :10], b, rtol=1e-4, atol=1e-5)


def test_the_norm_counts_zeros_that_are_not_there() -> None:
    x = torch.randn(2, 6, 50) + 3
    norm = Norm(6)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    padded = F.group_norm(F.pad(x, (0, 30)), 6, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(norm(x, 80), padded[..., :50], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_is_a_loop_over_queries_and_keys() -> None:
    torch.manual_seed(0)
    layer = Attention(16, 2, owns_bias=True)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, count = torch.randn(1, 5, 16), 5
    padding = torch.tensor([[False, False, False, False, True]])
    q, k, v = (proj(x)[0].view(5, 2, 8) for proj in (layer.q_proj, layer.k_proj, layer.v_proj))
    out = torch.zeros(5, 2, 8)
    for head in range(2):
        for i in range(count):
            numbers = layer.grep_linear(x[0, i].view(2, 8)[head])
            update, reset = (float(part.sum().sigmoid()) for part in (numbers[:4], numbers[4:]))
            gate = update * (reset * float(layer.grep_a[0, head, 0, 0]) - 1) + 2
            scores = []
            for j in range(4):  # the last key is padding
                bias = layer.relative_attention_bias.weight[bucket(j - i), head]
                scores.append(q[i, head] @ k[j, head] / math.sqrt(8) + gate * bias)
            out[i, head] = torch.stack(scores).softmax(0) @ v[:4, head]
    expected = layer.out_proj(out.reshape(1, 5, 16))
    torch.testing.assert_close(layer(x, layer.position_bias(5), padding), expected, rtol=1e-4, atol=1e-5)


def bucket(distance: int) -> int:
    """As T5 has it, with 160 buckets a side, half of them exact, up to 800."""
    far = abs(distance)
    number = far if far < 80 else min(159, 80 + int(math.log(far / 80) / math.log(10) * 80))
    return number + (160 if distance > 0 else 0)


def test_buckets_widen_with_distance() -> None:
    distances = [*range(-120, 121), 499, -499, 803, 2000]
    assert buckets(torch.tensor(distances)).tolist() == [bucket(d) for d in distances]


# Metric ---------------------------------------------------------------------------------------------------------------


def with_checkpoint(metric: AudioBox, checkpoint: Checkpoint) -> AudioBox:
    vars(metric)["checkpoint"] = checkpoint
    return metric


@pytest.fixture
def small() -> Checkpoint:
    return Checkpoint(
        dict(tiny().state_dict()), SETTINGS, {a: (t["mean"], t["std"]) for a, t in TRANSFORM.items()}, "32"
    )


def test_windows_are_ten_seconds_and_the_last_is_padded() -> None:
    sound = torch.rand(2 * WINDOW + 160)
    cut, length = windows(sound)
    assert cut.shape == (3, WINDOW) and length.tolist() == [WINDOW, WINDOW, 160]
    torch.testing.assert_close(cut.flatten()[: len(sound)], sound)
    assert (cut[2, 160:] == 0).all()
    assert windows(sound[:WINDOW])[1].tolist() == [WINDOW]
    assert windows(sound[:50])[1].tolist() == [50]


def test_a_rating_is_the_mean_over_windows_by_their_length(small: Checkpoint) -> None:
    sound = noise(12.5)
    net = small.network()
    total = torch.zeros(4)
    for start, count in ((0, WINDOW), (WINDOW, 40_000)):
        valid = torch.arange(WINDOW)[None] < count
        window = F.pad(torch.from_numpy(sound[start : start + count]), (0, WINDOW - count))[None]
        with torch.inference_mode():
            total += net(window, valid)[0] * count
    [result] = with_checkpoint(AudioBox(), small).score([Clip(None, sound)])
    assert isinstance(result, Measured)
    for i, axis in enumerate(AXES):
        rating = float(total[i]) / len(sound) * TRANSFORM[axis]["std"] + TRANSFORM[axis]["mean"]
        assert result.values[axis.lower()] == pytest.approx(rating, abs=1e-5)
    assert [column.name for column in AudioBox.columns] == ["cu", "pq", "ce", "pc"]


def test_a_clip_is_rated_the_same_in_any_company(small: Checkpoint) -> None:
    clips = [Clip(None, noise(seconds, i)) for i, seconds in enumerate((3.0, 10.01, 0.03, 7.0))]
    silent = Clip(np.zeros((5, 8, 8, 3), np.uint8), None)
    together = with_checkpoint(AudioBox(chunk=3), small).score([*clips, silent])
    alone = [with_checkpoint(AudioBox(chunk=1), small).score([clip])[0] for clip in clips]
    for a, b in zip(together, alone, strict=False):
        assert isinstance(a, Measured) and isinstance(b, Measured)
        assert a.values == pytest.approx(b.values, abs=1e-5)
    assert len({result.values["pq"] for result in alone if isinstance(result, Measured)}) == 4
    assert isinstance(together[4], Failed) and together[4].reason == "no audio stream"


def lightning(path: Path, state: dict[str, Tensor], config: dict[str, Any]) -> Path:
    keyed = {f"model.{key}": value for key, value in state.items()}
    torch.save({"state_dict": keyed, "model_cfg": config, "target_transform": TRANSFORM}, path / "checkpoint.pt")
    return path / "checkpoint.pt"


def hub(path: Path, state: dict[str, Tensor], config: dict[str, Any]) -> Path:
    save_file(state, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config | {"target_transform": TRANSFORM, "freeze_encoder": True}))
    return path / "model.safetensors"


@pytest.mark.parametrize("layout", [lightning, hub])
def test_both_published_layouts_are_read(layout: Callable[..., Path], tmp_path: Path) -> None:
    state = dict(tiny().state_dict())
    path = layout(tmp_path, state, SETTINGS | {"precision": "bf16", "proj_act_fn": "gelu", "output_dim": 1})
    found = read_checkpoint(path)
    assert found.precision == "bf16" and found.scale["PQ"] == (8.0, 1.3)
    assert all(torch.equal(value, state[key]) for key, value in found.network().state_dict().items())
    metric = AudioBox(weights=path)
    assert metric.missing() == ""
    assert json.loads(json.dumps(metric.protocol()))["precision"] == "bf16"
    assert AudioBox(weights=path, precision="fp32").protocol()["precision"] == "32"
    [half], [single] = (
        AudioBox(weights=path, precision=p).score([Clip(None, noise(1.0))]) for p in ("checkpoint", "fp32")
    )
    assert isinstance(half, Measured) and isinstance(single, Measured)
    assert half.values != single.values and half.values == pytest.approx(single.values, abs=0.1)


def test_a_checkpoint_that_says_no_precision_is_fp32(tmp_path: Path) -> None:
    assert read_checkpoint(hub(tmp_path, dict(tiny().state_dict()), SETTINGS)).precision == "32"


def test_dropout_moves_a_heads_keys() -> None:
    keys = {key for key in Aesthetics(**SETTINGS, proj_dropout=0.1, wavlm=WavLM(32, 1, 2, 48, 16)).state_dict()}
    assert {"proj_layer.CE.4.weight", "proj_layer.CE.8.weight"} <= keys and "proj_layer.CE.3.weight" not in keys


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = dict(tiny().state_dict())
    path = hub(tmp_path, state, SETTINGS)
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    assert "no mean and std for each of CE, CU, PC, PQ" in AudioBox(weights=path).missing()
    (tmp_path / "config.json").unlink()
    assert "needs its config.json" in AudioBox(weights=path).missing()
    (tmp_path / "other.pt").write_bytes(b"no weights")
    assert "cannot be read as weights" in AudioBox(weights=tmp_path / "other.pt").missing()
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pt")
    assert "is not AudioBox-Aesthetics: it lacks" in AudioBox(weights=tmp_path / "other.pt").missing()
    del state["layer_weights.PQ"]
    assert "layer_weights.PQ" in AudioBox(weights=lightning(tmp_path, state, SETTINGS)).missing()
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path / "none"))
    assert "ccl weights fetch audiobox" in AudioBox().missing()
