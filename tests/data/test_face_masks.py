"""Face masks of clips: the world's against what it draws, and how a batch comes by them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl import cli
from ccl.cli.errors import UsageError
from ccl.data import ShardData, Shards, encode_shards, write_shards
from ccl.data.faces import Written, mask
from ccl.data.make import known_of
from ccl.data.world import World, scene
from ccl.data.world.faces import Faces, boxes
from ccl.data.world.script import MOTION
from ccl.files import FileError
from ccl.grid import Grid
from ccl.media import Clip
from ccl.text import EmbeddedText
from ccl.types import AV
from helpers.encoded import make_codec
from helpers.fakes import GRID, FakeFaces
from helpers.tiny_clips import tiny_sources

WIDE = Grid(height=64, width=96)


def test_a_mask_is_the_share_of_pixels_that_a_fine_drawing_of_the_boxes_covers() -> None:
    grid, fine = Grid(frames=9, height=16, width=32), 16  # 2 x 4 latent pixels
    rng = np.random.default_rng(0)
    corners = rng.integers(-4 * fine, 36 * fine, (9, 2, 2, 2)) / fine  # also beyond the picture
    faces = np.concatenate([corners.min(2), corners.max(2)], 2)  # (f, n, 4)
    faces[:, 1, [0, 2]] += 100 * (rng.random((9, 1)) < 0.5)  # some pictures have one face alone
    y, x = ((np.arange(size * fine) + 0.5) / fine for size in (16, 32))
    drawn = np.zeros((9, 16 * fine, 32 * fine))
    for picture, each in zip(drawn, faces, strict=True):
        for left, top, right, bottom in each:
            picture += ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))
    cells = np.minimum(drawn.reshape(9, 2, 8 * fine, 4, 8 * fine).mean((2, 4)), 1)
    right = np.stack([cells[0], cells[1:5].mean(0), cells[5:9].mean(0)])
    np.testing.assert_allclose(mask(faces, grid), right, atol=1e-6)
    assert 0 < right.mean() < 1


@pytest.mark.parametrize("grid", [Grid(), WIDE], ids=["square", "wide"])
def test_boxes_of_the_world_are_around_the_faces_that_it_draws(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def noted(canvas: scene.Canvas, colour: object, x, y, rx, ry) -> None:
        if colour == scene.SKIN:
            drawn.append(np.stack(np.broadcast_arrays(x - rx, y - ry, x + rx, y + ry, np.zeros(canvas.frames))[:4], -1))
        plain(canvas, colour, x, y, rx, ry)

    plain = scene.Canvas.ellipse
    monkeypatch.setattr(scene.Canvas, "ellipse", noted)
    world = World(grid=grid)
    kinds: dict[str, int] = {}
    for index in range(40):  # one clip of each kind
        kinds.setdefault("event" if world.subset(index) == "event" else world.person(index).motion, index)
    assert kinds.keys() == {"event", "", *MOTION}
    for index in kinds.values():
        drawn.clear()
        found, _ = boxes(world, index), world.clip(index)
        assert found.shape == (grid.frames, len(drawn), 4)
        for face in drawn:  # in 48ths of the shorter side, about the middle
            unit = min(grid.height, grid.width) / 48
            middle = np.array([grid.width, grid.height] * 2) / 2
            np.testing.assert_allclose(found[:, 0], (face - 24) * unit + middle, atol=1e-9)


def test_a_portraits_mask_is_where_its_skin_and_mouth_are() -> None:
    world = World()
    index = next(i for i in range(20) if world.subset(i) == "easy")
    whole = Faces(world)({"id": world.id(index)}, world.grid)["face_mask"]
    assert whole.shape == (20, 6, 6) and whole.dtype == np.float32 and (whole == whole[0]).all()
    video = world.clip(index).video
    assert video is not None
    near = np.abs(video[0].astype(int) - scene.SKIN).max(-1) < 12
    at = np.argwhere(near[:36])  # above the neck
    skin = np.zeros((6, 6), bool)
    skin[tuple((at // 8).T)] = True
    assert (whole[0][skin] > 0).all()
    assert whole[0].sum() * 64 == pytest.approx(25 * 30, abs=1e-3)  # the ellipse's own width and height
    with pytest.raises(ValueError, match="clip mine-000001 is none of the world's, as world0-train-000000 is"):
        Faces(world)({"id": "mine-000001"}, world.grid)


def test_a_batch_brings_masks_where_a_model_needs_them(whole: Path, clips: Path) -> None:
    for folder in (whole, clips):
        data = ShardData(str(folder), GRID, make_codec(), batch_size=4)
        data.extras = FakeFaces()
        data.serve(AV(True, True), EmbeddedText(dim=8), ()) if folder is clips else None
        assert next(iter(data.train_dataloader())).extras == {}
        data.needs = ("face_mask",)
        batch = next(iter(data.train_dataloader()))
        assert batch.extras.keys() == {"face_mask"}
        for id, one in zip(batch.id, batch.extras["face_mask"], strict=True):
            assert torch.equal(one, torch.from_numpy(FakeFaces()({"id": id}, GRID)["face_mask"]))


# Boxes that are written down with a clip


class Finds:
    """One face, which moves to the right, in all but the first picture; and a second in the last."""

    version = "finds-1"

    def find(self, clip: Clip) -> list[np.ndarray]:
        assert clip.video is not None
        faces = [np.array([[0.5 * i, 1.0, 0.5 * i + 8, 12.0]]) for i in range(len(clip.video))]
        return [np.empty((0, 4)), *faces[1:-1], np.concatenate([faces[-1], [[20.0, 4.04, 30.0, 16.0]]])]


def test_boxes_that_were_found_go_with_a_clip_into_shards_and_latents_and_become_its_mask(tmp_path: Path) -> None:
    write_shards(tiny_sources(4, GRID), tmp_path / "clips", GRID, faces=Finds(), workers=2)
    encode_shards(tmp_path / "clips", tmp_path / "z", make_codec(), GRID)
    boxes = np.zeros((GRID.frames, 2, 4))
    for i in range(1, GRID.frames):
        boxes[i, 0] = 0.5 * i, 1, 0.5 * i + 8, 12
    boxes[-1, 1] = 20, 4, 30, 16
    for folder in ("clips", "z"):
        data = ShardData(str(tmp_path / folder), GRID, make_codec(), batch_size=4)
        data.serve(AV(True, True), EmbeddedText(dim=8), ("face_mask",))
        for one in next(iter(data.train_dataloader())).extras["face_mask"]:
            np.testing.assert_array_equal(one, mask(boxes, GRID))
    with pytest.raises(ValueError, match="already holds shards made with other faces"):
        write_shards(tiny_sources(4, GRID), tmp_path / "clips", GRID)
    with pytest.raises(ValueError, match="sound alone shows no faces"):
        write_shards(tiny_sources(4, GRID), tmp_path / "sound", GRID, faces=Finds(), sound=True)


@pytest.mark.parametrize("faces", [None, [[]] * 8, [[[1, 2, 3]]] * 9, [[[1, 2, 3, float("nan")]]] * 9, [7] * 9])
def test_what_is_written_in_the_place_of_boxes_is_refused(faces: Any) -> None:
    with pytest.raises(ValueError, match="its faces are no boxes of each of its 9 pictures"):
        Written()({"id": "a", "faces": faces}, Grid(frames=9, height=16, width=32))
    nobody = Written()({"id": "a", "faces": [[]] * 9}, Grid(frames=9, height=16, width=32))["face_mask"]
    assert nobody.shape == (3, 2, 4) and not nobody.any()


def test_a_damaged_clips_boxes_are_told_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Finds, "find", lambda self, clip: [np.empty((0, 4))] * 3)
    write_shards(tiny_sources(1, GRID), tmp_path / "clips", GRID, faces=Finds())
    shards = Shards(tmp_path / "clips", GRID, extras=Written())
    with pytest.raises(
        FileError, match=r"shard-000000.tar, clip clip0.* as a clip for this model .its faces are no boxes"
    ):
        next(iter(shards))


def test_a_speakers_face_is_found_in_a_file(tmp_path: Path) -> None:
    root = os.environ.get("CCL_TEST_DATA")
    if not root:
        pytest.skip("CCL_TEST_DATA names no folder of real clips and weights")
    pytest.importorskip("cv2")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").symlink_to(Path(root).resolve() / "clips/latentsync_demo1.mp4")
    (tmp_path / "videos/a.txt").write_text("a man speaks")
    yunet = str(Path(root).resolve() / "weights/face_detection_yunet_2026may.onnx")
    grid = Grid(frames=9, height=128, width=128)
    line = ["shards", "make", str(tmp_path / "videos"), "-o", str(tmp_path / "out"), "--faces", yunet]
    assert cli.main([*line, "--frames", "9", "--height", "128", "--width", "128"]) == 0
    (sample,) = Shards(tmp_path / "out", grid, shuffle=0, endless=False, extras=Written())
    found, masks = sample["faces"], sample["extras"]["face_mask"]
    assert [len(each) for each in found] == [1] * 9 and masks.shape == (3, 16, 16)
    with pytest.raises(UsageError, match=r"--faces: there is no file nowhere.onnx, given as the weights of yunet"):
        cli.run([*line[:-1], "nowhere.onnx"])


def test_clips_of_which_no_masks_are_known_are_refused_by_a_model_that_needs_them(clips: Path) -> None:
    data = ShardData(str(clips), GRID)
    with pytest.raises(ValueError, match=r"trains on 'face_mask', which is not known of the clips in .*ten"):
        data.serve(AV(True, True), EmbeddedText(dim=8), ("face_mask",))
    known = known_of(Grid(), 3, ("face_mask",))
    assert known is not None and known.names == ("face_mask",)
    name = {"id": World(3).id(5)}
    ours, right = (each(name, Grid())["face_mask"] for each in (known, Faces(World(3))))
    assert np.array_equal(ours, right)
