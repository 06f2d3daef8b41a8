"""Face masks of clips: the world's against what it draws, and how a batch comes by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ccl.data import ShardData, WorldData
from ccl.data.faces import mask
from ccl.data.world import World, scene
from ccl.data.world.faces import Faces, boxes
from ccl.data.world.script import MOTION
from ccl.grid import Grid
from ccl.text import EmbeddedText
from ccl.types import AV
from helpers.encoded import make_codec
from helpers.fakes import GRID, FakeFaces

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
    whole = Faces(world)(world.id(index), world.grid)["face_mask"]
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
        Faces(world)("mine-000001", world.grid)


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
            assert torch.equal(one, torch.from_numpy(FakeFaces()(id, GRID)["face_mask"]))


def test_clips_of_which_no_masks_are_known_are_refused_by_a_model_that_needs_them(clips: Path, tmp_path: Path) -> None:
    data = ShardData(str(clips), GRID)
    with pytest.raises(ValueError, match=r"trains on 'face_mask', which is not known of the clips in .*ten"):
        data.serve(AV(True, True), EmbeddedText(dim=8), ("face_mask",))
    world = WorldData(Grid(), make_codec(), root=str(tmp_path), seed=3)
    assert world.extras is not None and world.extras.names == ("face_mask",)
    name = World(3).id(5)
    ours, right = (each(name, Grid())["face_mask"] for each in (world.extras, Faces(World(3))))
    assert np.array_equal(ours, right)
