"""A fitted orthonormal basis, what it makes of a single picture, and the file that holds the codecs' bases.

A block x is projected to z = basis (x - mean) / scale and comes back as mean + basis^T (z * scale).
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from ccl.weights.formats import check_finite

ENCODER = ("mean", "basis", "scale")  # the tensors of a part that its latents depend on


class Basis(nn.Module):
    """An affine projection onto `channels` orthonormal directions, and its transpose.

    Args:
        mean: (D,) of the blocks.
        basis: (C, D) orthonormal rows.
        scale: (C,) what a coefficient is divided by.

    Raises:
        ValueError: their shapes do not belong together, a number is not finite, or a scale not positive.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, basis: Tensor, scale: Tensor) -> None:
        super().__init__()
        channels, dim = basis.shape if basis.ndim == 2 else (0, 0)
        if basis.ndim != 2 or mean.shape != (dim,) or scale.shape != (channels,):
            shapes = f"mean {tuple(mean.shape)}, basis {tuple(basis.shape)}, scale {tuple(scale.shape)}"
            raise ValueError(f"a codec basis has shapes (D,), (C, D) and (C,), not {shapes}")
        for name, values in (("mean", mean), ("basis", basis), ("scale", scale)):
            check_finite(name, values, "a codec basis")
        if not bool((scale > 0).all()):
            raise ValueError(f"a codec basis has scale {float(scale.min()):g} in a channel; it must be positive")
        # Not persistent: a checkpoint names the codec by its identity and does not carry it.
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def project(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n c"]:
        return ((x - self.mean) @ self.basis.T) / self.scale

    def expand(self, z: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        return (z * self.scale) @ self.basis + self.mean


class Still(nn.Module):
    """A single picture on a basis of blocks that last: as if the picture stood still for the length of a block.

    The first latent frame thus lies in the same space as the later ones, as it does in Wan's VAE. With a basis of its
    own it stayed noise for hundreds of steps: rotary positions are relative, and nothing else tells a network that a
    frame is the first.

    Args:
        basis: of D = length * d numbers a block, pictures outermost.
        length: pictures a block.
    """

    def __init__(self, basis: Basis, length: int) -> None:
        super().__init__()
        self.basis, self.length = basis, length

    def project(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n c"]:
        return self.basis.project(x.repeat(*[1] * (x.ndim - 1), self.length))

    def expand(self, z: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        return self.basis.expand(z).unflatten(-1, (self.length, -1)).mean(-2)


class BasisFile:
    """A basis file in memory.

    Args:
        path: a file written by `fit`; None is the one that is shipped.

    Raises:
        ValueError: where the file is missing or no safetensors file; from the methods, where it lacks what is asked.
    """

    def __init__(self, path: str | None) -> None:
        shipped = resources.files("ccl.codecs") / "basis" / "world.safetensors"
        self.source = shipped if path is None else Path(path)
        try:
            blob = self.source.read_bytes()
            self.tensors = load(blob)
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
            raise ValueError(f"codec basis {self.source} {why}; make one with `ccl codec fit`") from error
        except SafetensorError as error:
            raise ValueError(f"codec basis {self.source} is not a safetensors file ({error})") from error

    def take(self, name: str, *parts: str) -> list[Tensor]:
        """Tensors of a basis, in float32."""
        missing = [f"{name}.{part}" for part in parts if f"{name}.{part}" not in self.tensors]
        if missing:
            raise ValueError(f"codec basis {self.source} lacks {', '.join(missing)}; make one with `ccl codec fit`")
        return [self.tensors[f"{name}.{part}"].float() for part in parts]

    def has(self, name: str, *parts: str) -> bool:
        return all(f"{name}.{part}" in self.tensors for part in parts)

    def space(self, name: str, settings: str = "") -> str:
        """Hash of what makes latents: the basis and the settings before it. Decoders may improve; latents stay good."""
        digest = hashlib.sha256(settings.encode())
        for tensor in self.take(name, *ENCODER):
            digest.update(f"{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def basis(self, name: str, channels: int) -> Basis:
        mean, basis, scale = self.take(name, *ENCODER)
        if basis.shape[0] != channels:
            raise ValueError(
                f"codec basis {self.source} has {basis.shape[0]} {name} channels and {channels} are asked for; "
                "fit a basis of that size with `ccl codec fit`"
            )
        try:
            return Basis(mean, basis, scale)
        except ValueError as error:
            raise ValueError(f"codec basis {self.source}, {name}: {error}") from error
