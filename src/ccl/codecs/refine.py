"""What a latent's neighbours know about it: a correction of what is decoded, fitted in closed form.

Sixteen numbers leave the place of an edge open that the blocks around it tell. A ridge regression from the latents of a
block and of its eight neighbours, through fixed random ReLU features (an extreme learning machine, Huang et al. 2006),
predicts what the block's own basis leaves out. It looks at one latent frame alone, so decoding stays causal. For sound
the neighbours are the two latents before and the two after.

B clips, T latent frames, H x W latent pixels, C channels, N features, R rank, D numbers decoded from a latent.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BLOCKS, PAIRS = 9, 5  # latents that a context holds, of pictures and of sound; a latent's own is the middle one
_OWN = {BLOCKS: 10.0, PAIRS: 4.0}  # how much louder a latent itself speaks in the random directions than a neighbour
_ROWS = 16_384  # latents decoded at once, to bound memory on large pictures


def context(z: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w k"]:
    """Each block's latents with its eight neighbours' (K = 9 C); zeros, the average block, outside the picture."""
    height, width = z.shape[2:4]
    padded = F.pad(z, (0, 0, 1, 1, 1, 1))
    return torch.cat([padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)], dim=-1)


def sequence(z: Float[Tensor, "b t c"]) -> Float[Tensor, "b t k"]:
    """Each latent of sound between the two before and the two after it (K = 5 C); zeros outside the clip."""
    length, side = z.shape[1], PAIRS // 2
    padded = F.pad(z, (0, 0, side, side))
    return torch.cat([padded[:, i : i + length] for i in range(PAIRS)], dim=-1)


class Features(nn.Module):
    """Random ReLU features of a context, followed by the context itself and a one.

    Args:
        channels: of a latent.
        hidden: ReLU features; 0 leaves a linear regression on the neighbours.
        places: latents of a context, BLOCKS or PAIRS.
    """

    directions: Tensor
    offsets: Tensor

    def __init__(self, channels: int, hidden: int, places: int = BLOCKS) -> None:
        super().__init__()
        # numpy promises that this stream never changes, so a basis file need not hold the directions.
        random = np.random.RandomState(0)
        loud = np.full((places, 1, 1), 1.0)
        loud[places // 2] = _OWN[places]
        directions = (random.standard_normal((places, channels, hidden)) * loud).reshape(places * channels, hidden)
        directions /= np.linalg.norm(directions, axis=0, keepdims=True)
        self.register_buffer("directions", torch.tensor(directions, dtype=torch.float32), persistent=False)
        offsets = torch.tensor(random.standard_normal(hidden), dtype=torch.float32)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, u: Float[Tensor, "*m k"]) -> Float[Tensor, "*m n"]:
        return torch.cat([torch.relu(u @ self.directions + self.offsets), u, torch.ones_like(u[..., :1])], dim=-1)


class Refiner(nn.Module):
    """Correction of what is decoded, from the latents around it.

    Args:
        channels: of a latent.
        inward: (N, R) regression weights, low rank.
        outward: (R, D) from there to pixels or log-mel numbers.
        places: BLOCKS for latents (B, T, H, W, C) of pictures, PAIRS for (B, T, C) of sound.

    Raises:
        ValueError: the weights' shapes do not belong together, or are of other channels.
    """

    inward: Tensor
    outward: Tensor

    def __init__(self, channels: int, inward: Tensor, outward: Tensor, *, places: int = BLOCKS) -> None:
        super().__init__()
        if inward.ndim != 2 or outward.ndim != 2 or inward.shape[1] != outward.shape[0]:
            shapes = f"{tuple(inward.shape)} and {tuple(outward.shape)}"
            raise ValueError(f"a decoder's correction has weights (N, R) and (R, D), not {shapes}")
        if inward.shape[0] <= places * channels:
            raise ValueError(
                f"a decoder's correction of {inward.shape[0]} features is too small for {channels} channels at "
                f"{places} places; it needs more than {places * channels}"
            )
        self.context = context if places == BLOCKS else sequence
        self.features = Features(channels, inward.shape[0] - places * channels - 1, places)
        self.register_buffer("inward", inward, persistent=False)
        self.register_buffer("outward", outward, persistent=False)

    def forward(self, z: Float[Tensor, "b t *hw c"]) -> Float[Tensor, "b t *hw d"]:
        u = self.context(z)
        rows = u.flatten(0, -2).split(_ROWS)
        return torch.cat([self.features(part) @ self.inward @ self.outward for part in rows]).unflatten(0, z.shape[:-1])


class Ridge:
    """Normal equations of a regression on features, gathered piece by piece.

    Args:
        features: of a context.
        dim: numbers decoded from a latent.
    """

    def __init__(self, features: Features, dim: int) -> None:
        self.features = features
        size = features.directions.shape[0] + features.directions.shape[1] + 1
        self.gram, self.cross = torch.zeros(size, size).double(), torch.zeros(size, dim).double()

    def add(self, u: Float[Tensor, "m k"], residual: Float[Tensor, "m d"]) -> None:
        for part, target in zip(u.split(_ROWS), residual.split(_ROWS), strict=True):
            x = self.features(part)
            self.gram += (x.T @ x).double()
            self.cross += (x.T @ target).double()

    def solve(self, rank: int, strength: float = 1e-5) -> tuple[Float[Tensor, "n r"], Float[Tensor, "r d"]]:
        """Weights of the given rank: the ridge solution, projected on what varies most of what it predicts."""
        diagonal = self.gram.diagonal()
        damping = strength * diagonal + 0.1 * strength * diagonal.mean()
        weights = torch.linalg.solve(self.gram + torch.diag(damping), self.cross)
        _, vectors = torch.linalg.eigh(weights.T @ self.gram @ weights)
        outward = vectors[:, -rank:].T
        return weights @ outward.T, outward
