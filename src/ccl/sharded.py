"""Weights of a sharded checkpoint (FSDP2), gathered by one process on a CPU, without unpickling more than its index.

torch writes the index of a distributed checkpoint as a pickle; here it may name nothing but what such an index is made
of. The tensors themselves are read with weights_only.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

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


class IndexUnpickler(pickle.Unpickler):
    """Reads an index; refuses whatever else a pickle can name."""

    def find_class(self, module: str, name: str) -> Any:
        if name in ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its index names {module}.{name}")


class Reader(FileSystemReader):
    """torch's reader with that unpickler."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with Path(self.path, ".metadata").open("rb") as file:
            return IndexUnpickler(file).load()


def read_sharded(path: Path) -> dict[str, Tensor]:
    """Whole tensors by name.

    Args:
        path: a folder that a sharded training wrote.

    Raises:
        ValueError: one sentence, where it is damaged or no such folder.
    """
    try:
        reader = Reader(path)
        index = reader.read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in index.items()
            if name.startswith(PREFIX) and isinstance(entry, TensorStorageMetadata)
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is what is meant
            load(tensors, storage_reader=reader, no_dist=True)
    except Exception as error:  # torch raises what the bytes happen to provoke
        raise ValueError(f"{path} cannot be read as a sharded checkpoint: {str(error).splitlines()[0]}") from error
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
