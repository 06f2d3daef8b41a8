"""A fitted orthonormal basis, and the file that holds the codecs' three of them.

A block x is projected to z = basis (x - mean) / scale and comes back as mean + basis^T (z * scale).
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn


class Basis(nn.Module):
    """An affine projection onto `channels` orthonormal directions, and its transpose.

    Args:
        mean: (D,) of the blocks.
        basis: (C, D) orthonormal rows.
        scale: (C,) what a coefficient is divided by.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, basis: Tensor, scale: Tensor) -> None:
        super().__init__()
        # Not persistent: a checkpoint names the codec by its identity and does not carry it.
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def project(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n c"]:
        return ((x - self.mean) @ self.basis.T) / self.scale

    def expand(self, z: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        return (z * self.scale) @ self.basis + self.mean


def load_bases(path: str | None, names: list[str], channels: int) -> tuple[list[Basis], str]:
    """The named bases of a file and the first 12 hex digits of the file's sha256.

    Args:
        path: a file written by `fit`; None is the one that is shipped.
        names: of the bases.
        channels: that they must have.

    Raises:
        ValueError: where the file is missing, is no basis file, or has another number of channels.
    """
    source = resources.files("ccl.codecs") / "basis" / "world.safetensors" if path is None else Path(path)
    try:
        blob = source.read_bytes()
        tensors = load(blob)
        bases = [Basis(*(tensors[f"{name}.{part}"] for part in ("mean", "basis", "scale"))) for name in names]
    except OSError as error:
        raise ValueError(
            f"codec basis {source} cannot be read ({error.strerror}); make one with `ccl codec fit`"
        ) from error
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"codec basis {source} is not a basis file; make one with `ccl codec fit`") from error
    for name, basis in zip(names, bases, strict=True):
        if basis.basis.shape[0] != channels:
            raise ValueError(
                f"codec basis {source} has {basis.basis.shape[0]} {name} channels, the codec is asked for {channels}; "
                "fit a basis of that size with `ccl codec fit`"
            )
        basis.to(torch.float32)
    return bases, hashlib.sha256(blob).hexdigest()[:12]
