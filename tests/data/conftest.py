"""Ten small clips in shards, and their latents: read, never written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccl.data.encode import encode_shards
from ccl.data.write import write_shards
from helpers.encoded import make_codec
from helpers.fakes import GRID
from helpers.tiny_clips import tiny_sources
from helpers.tiny_encoders import FrozenText


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("clips") / "ten"
    write_shards(tiny_sources(10, GRID), out, GRID, shard_size=2)
    return out


@pytest.fixture(scope="session")
def whole(clips, tmp_path_factory) -> Path:
    """What a run that nothing stopped leaves."""
    out = tmp_path_factory.mktemp("whole") / "z"
    encode_shards(clips, out, make_codec(), GRID, text=FrozenText())
    return out
