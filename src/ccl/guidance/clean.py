"""What a rule does with predictions of the clean clip, x - t v, put back into velocities.

B clips, T latent frames.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ccl.flow import expand


def rescaled(
    x: Float[Tensor, "b ..."],
    times: Float[Tensor, " b"] | Float[Tensor, "b t"],
    v: Float[Tensor, "b ..."],
    told: Float[Tensor, "b ..."],
    phi: float,
) -> Float[Tensor, "b ..."]:
    """The velocity of a clean prediction whose spread is drawn towards that of another, clip by clip.

    With k = phi std(told) / std(own) + 1 - phi, of clean predictions, k (x - t v) is the clean prediction of
    k v + (1 - k) x / t. Where t is 0 a frame is given, and has no velocity to speak of: the other one's is left.

    Args:
        x: latents.
        times: what the network was told, 0 where a frame is given.
        v: guided velocity.
        told: the conditional velocity.
        phi: how far, from 0 to 1.
    """
    t, told = expand(times.float(), x), told.float()
    own, other = ((x - t * each).flatten(1).std(1) for each in (v, told))
    k = phi * torch.where(own > 0, other / own, 1.0) + 1 - phi  # a clip of one value has no spread to draw
    k = k.reshape(-1, *[1] * (x.ndim - 1))
    return torch.where(t > 0, k * v + (1 - k) * x / t.clamp(min=1e-9), told)
