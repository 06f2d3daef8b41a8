"""Weights of a sharded checkpoint (FSDP2), gathered by one process on a CPU, without unpickling more than its index.

torch writes the index of a distributed checkpoint as a pickle; here it may name nothing but what such an index is made
of. The tensors themselves are read with weights_only.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from enum import Enum, EnumMeta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from ccl.files import plain_name, reading
from ccl.storage.checkpoint import check_parts, is_complete

KIND = "a sharded checkpoint"
PREFIX = "state_dict."
ALLOWED = {
    "torch.distributed.checkpoint.metadata": {
        *("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
        *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "pathlib": {"PosixPath"},
}


def member(kind: Any, name: Any) -> Enum:
    """A member of an enumeration: Python before 3.11.4 pickles it as getattr(class, name), which here gives no more."""
    if isinstance(kind, EnumMeta) and name in kind.__members__:
        return kind[name]
    raise pickle.UnpicklingError(f"its index names {name} of {kind}")


class IndexUnpickler(pickle.Unpickler):
    """Reads an index; refuses whatever else a pickle can name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return member
        if name in ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its index names {module}.{name}")


class Reader(FileSystemReader):
    """torch's reader with that unpickler; its parts lie beside the index, wherever that says they do."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        index = Path(self.path, ".metadata")
        with index.open("rb") as file:
            metadata = IndexUnpickler(file).load()
        for part in (metadata.storage_data or {}).values():
            plain_name(part.relative_path, index)
        return metadata


def read_sharded(path: Path) -> dict[str, Tensor]:
    """Whole tensors by name.

    Args:
        path: a folder that a sharded training wrote.

    Raises:
        FileError: one sentence, where it is damaged or no such folder.
    """
    if is_complete(path):
        check_parts(path)
    with reading(path, KIND), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is what is meant
        tensors = {
            PREFIX + name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries(path)
        }
        load(tensors, storage_reader=Reader(path), no_dist=True)
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def sharded_shapes(path: Path) -> dict[str, torch.Size]:
    """Shapes of the whole tensors by name, from the index alone; raises as `read_sharded` does."""
    with reading(path, KIND):
        return {name: entry.size for name, entry in entries(path)}


def entries(path: Path) -> Iterator[tuple[str, TensorStorageMetadata]]:
    """The weights that the index names."""
    for name, entry in Reader(path).read_metadata().state_dict_metadata.items():
        if name.startswith(PREFIX) and isinstance(entry, TensorStorageMetadata):
            yield name.removeprefix(PREFIX), entry
