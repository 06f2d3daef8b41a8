"""Clips to score."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.metrics import clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "clips"
    for i in range(4):
        (clip(i) if i < 3 else replace(clip(i), audio=np.zeros(3200, np.float32))).save(folder / f"c{i}.mp4")
    (folder / "c4.mp4").write_bytes(b"no film")
    return folder


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    """c0 to c2 are fine, c3 is silent, c4 is broken, c5 is missing."""
    return Path(shutil.copytree(clips, tmp_path / "clips"))
