"""Identity to the first picture, of all that is seen (DINO) and of faces: formulas, random networks, real faces."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ccl.evaluation.film import Film
from ccl.evaluation.metrics import DINO, Face
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.dino import consistency, resized
from ccl.evaluation.metrics.face import SIDE, TEMPLATE, aligned, similarity
from ccl.media import Clip, read_natural

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def values(metric: DINO | Face, *clips: Clip | Film) -> list[dict[str, float]]:
    results = metric.score(clips)
    assert all(isinstance(result, Measured) for result in results), results
    return [result.values for result in results if isinstance(result, Measured)]


# DINO ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["vit", "dinov2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the hub."""
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

    torch.manual_seed(0)
    if request.param == "vit":
        net = ViTModel(ViTConfig(**SIZES, image_size=64, patch_size=16), add_pooling_layer=False)
    else:
        net = Dinov2Model(Dinov2Config(**SIZES, image_size=56, patch_size=14, mlp_ratio=2))
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.3 * torch.randn_like(value))
    path = tmp_path_factory.mktemp(request.param)
    net.save_pretrained(path)  # under the names that published files have
    return path


def pictures(count: int = 6, height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """Coarse noise that changes bit by bit."""
    rng = np.random.default_rng(seed)
    first, last = rng.integers(0, 255, (2, 8, 8, 3))
    mixed = [first + (last - first) * i / (count - 1) for i in range(count)]
    rows, columns = -(-height // 8), -(-width // 8)
    return np.stack([one.repeat(rows, 0).repeat(columns, 1)[:height, :width] for one in mixed]).astype(np.uint8)


def test_consistency_is_vbenchs_loop():
    seen = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    total, first = 0.0, []
    for i in range(1, 7):
        one, before = (F.cosine_similarity(seen[i], seen[j], dim=0).item() for j in (0, i - 1))
        first.append(one)
        total += (max(0.0, before) + max(0.0, one)) / 2
    expected = {"dino_identity": np.mean(first), "dino_subject": total / 6}
    assert consistency(seen) == pytest.approx(expected, abs=1e-6)


def test_the_metric_is_the_cosine_of_the_networks_class_tokens(folder):
    metric = DINO(weights=folder, pictures=3)
    film = pictures(5)
    [found] = values(metric, Clip(film, None))
    seen = []
    for at in (0, 2, 4):
        byte = F.interpolate(torch.from_numpy(film[at]).permute(2, 0, 1)[None].float(), (224, 298), mode="bilinear")
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        wide = {"interpolate_pos_encoding": True} if metric.net.config.model_type == "vit" else {}
        seen.append(metric.net((byte.round() / 255 - mean) / std, **wide).last_hidden_state[0, 0])
    assert found == pytest.approx(consistency(torch.stack(seen)), abs=1e-5)


def test_weights_under_the_networks_own_names_are_taken_too(folder, tmp_path):
    net = DINO(weights=folder).net
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    again = DINO(weights=tmp_path).net.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in net.state_dict().items())


def test_a_still_picture_is_itself_and_another_scene_is_not(folder):
    still = np.repeat(pictures(2)[:1], 4, 0)
    cut = np.concatenate([still[:2], pictures(2, seed=9)])
    frozen, slow, other = values(DINO(weights=folder, pictures=4), *(Clip(x, None) for x in (still, pictures(), cut)))
    assert list(frozen.values()) == pytest.approx([1, 1], abs=1e-6)
    assert other["dino_identity"] < 1 - 1e-3 and slow["dino_identity"] < 1 - 1e-3


def test_chunks_and_company_leave_dino_as_it_is(folder):
    clips = [Clip(pictures(seed=seed), None) for seed in range(2)] + [Clip(pictures(5, 300, 200), None)]
    alone = [values(DINO(weights=folder, chunk=1), clip)[0] for clip in clips]
    metric = DINO(weights=folder, chunk=16)
    metric.batch_size = 3
    for one, other in zip(alone, values(metric, *clips), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("size", [(480, 768), (300, 200), (224, 224), (100, 90)])
def test_the_shorter_side_becomes_the_networks(size):
    height, width = resized(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape[-2:]
    assert min(height, width) == 224 and width / height == pytest.approx(size[1] / size[0], rel=0.01)


def test_what_dino_lacks_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert "`ccl weights fetch dino`" in DINO().missing()
    (tmp_path / "yunet.onnx").write_bytes(b"")
    assert "`ccl weights fetch sface`" in Face(weights={"yunet": tmp_path / "yunet.onnx"}).missing()
    assert DINO().score([Clip(pictures()[:1], None)]) == [Failed("one picture alone has none to be compared with")]
    (tmp_path / "dino").mkdir()
    (tmp_path / "dino/config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "dino/model.safetensors").write_bytes(b"")
    [result] = DINO().score([Clip(pictures(), None)])
    assert isinstance(result, Failed) and "is of clip, not of DINO" in result.reason
    for metric in (DINO, Face):
        with pytest.raises(ValueError, match="pictures is 1"):
            metric(pictures=1)


# Faces ---------------------------------------------------------------------------------------------------------------


def test_points_that_were_turned_scaled_and_moved_come_back_to_the_template():
    angle, scale = 0.4, 2.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(TEMPLATE @ turn.T + (30, -12), TEMPLATE)
    np.testing.assert_allclose((TEMPLATE @ turn.T + (30, -12)) @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)


def test_the_turn_is_the_best_by_least_squares():
    rng = np.random.default_rng(0)
    points = TEMPLATE * 1.7 + rng.normal(0, 4, (5, 2))
    a, b, c, d = np.linalg.lstsq(
        np.concatenate([[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points]), TEMPLATE.ravel(), rcond=None
    )[0]
    np.testing.assert_allclose(similarity(points, TEMPLATE), [[a, -b, c], [b, a, d]], atol=1e-9)


class Recogniser:
    """In an onnxruntime session's place: a face is what 8 x 8 means of it are, less their own mean."""

    def __init__(self) -> None:
        self.largest = 0.0

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="data")]

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        face = inputs["data"]
        assert face.shape == (1, 3, SIDE, SIDE) and face.dtype == np.float32
        self.largest = max(self.largest, float(np.abs(face).max()))
        small = face.reshape(1, 3, 8, 14, 8, 14).mean((3, 5)).reshape(1, -1)
        return [small - small.mean()]


@pytest.fixture(scope="module")
def yunet() -> Path:
    data = os.environ.get("CCL_TEST_DATA")
    if data is None:
        pytest.skip("CCL_TEST_DATA is not set: no real clips")
    pytest.importorskip("cv2", reason="needs the eval extra")
    return Path(data) / "weights/face_detection_yunet_2026may.onnx"


def of(name: str) -> np.ndarray:
    return read_natural(Path(os.environ["CCL_TEST_DATA"]) / "clips" / f"{name}.mp4")[0].video[:60:20]


def face(yunet: Path, **settings: object) -> Face:
    metric = Face(weights={"yunet": yunet}, pictures=3, **settings)
    metric.__dict__["session"] = Recogniser()
    return metric


def test_eyes_nose_and_mouth_lie_where_they_are_looked_for(yunet):
    """YuNet, asked again, finds them there in the crop."""
    import cv2

    [crops, *_] = aligned(of("versebench_syncnet_1"), yunet)
    wide = cv2.copyMakeBorder(crops[0], 56, 56, 56, 56, cv2.BORDER_REPLICATE)
    again = cv2.FaceDetectorYN.create(str(yunet), "", (224, 224), 0.5).detect(wide[..., ::-1].copy())[1]
    assert again is not None
    assert np.abs(again[0, 4:14].reshape(5, 2) - 56 - TEMPLATE).max() < 8


def test_the_same_face_is_nearer_than_another_and_two_are_told_apart(yunet):
    one, two = of("versebench_syncnet_1"), of("ovi_two_men")
    assert {len(faces) for faces in aligned(two, yunet)} == {2}
    height, width = (min(a, b) for a, b in zip(one.shape[1:3], two.shape[1:3], strict=True))
    mixed = np.concatenate([one[:1, :height, :width], two[:2, :height, :width]])
    own, both, other = values(face(yunet), *(Clip(film, None) for film in (one, two, mixed)))
    assert own["face_seen"] == both["face_seen"] == 1
    assert own["face_identity"] > 0.9 and both["face_identity"] > 0.9
    assert other["face_identity"] < own["face_identity"] - 0.2


def test_a_recogniser_gets_its_own_range(yunet):
    for model, largest in (("sface", 255), ("arcface", 1)):
        metric = face(yunet, model=model)
        values(metric, Clip(of("versebench_syncnet_1"), None))
        assert largest * 0.5 < metric.session.largest <= largest


def test_a_clip_without_faces_has_a_reason(yunet):
    assert face(yunet).score([Clip(pictures(), None)]) == [Failed("0 of 3 pictures show a face; identity needs two")]
