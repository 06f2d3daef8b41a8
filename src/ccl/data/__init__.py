"""Data: shards of clips or of latents, written (`write`, `encode`), read (`shards`) and fed to training (`datamodule`).

Names are imported when they are used: a process that only writes clips needs neither torch nor Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccl.data.archive import Report
    from ccl.data.datamodule import ShardData, WorldData
    from ccl.data.encode import encode_shards
    from ccl.data.make import shards_encode, shards_world
    from ccl.data.shards import Shards
    from ccl.data.sources import Source, folder_sources
    from ccl.data.write import shards_make, write_shards

__all__ = [
    "Report",
    "ShardData",
    "Shards",
    "Source",
    "WorldData",
    "encode_shards",
    "folder_sources",
    "shards_encode",
    "shards_make",
    "shards_world",
    "write_shards",
]

_HOMES = {
    "archive": ("Report",),
    "make": ("shards_encode", "shards_world"),
    "datamodule": ("ShardData", "WorldData"),
    "encode": ("encode_shards",),
    "sources": ("Source", "folder_sources"),
    "shards": ("Shards",),
    "write": ("shards_make", "write_shards"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"ccl.data.{module}"), name)
    raise AttributeError(f"module 'ccl.data' has no attribute {name!r}")
