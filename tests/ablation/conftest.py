"""Folders of matrices."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """One level down: a matrix looks beside its own folder, where other tests' would lie."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder
