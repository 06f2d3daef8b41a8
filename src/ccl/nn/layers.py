"""Layers that know how to initialise themselves, fp32 norms, and Wan's modulation in as few passes as it takes.

b batch, f frames that have a time of their own (1 where a stream has one time), s tokens of such a frame, d width.
Norms and modulation compute in float32 whatever the autocast, float64 in float64, and return their input's type.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

EPS = 1e-6  # Wan2.1's, in every norm


def wide(x: Tensor) -> Tensor:
    """In float32 at least: half precision is widened, float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


class Linear(nn.Linear):
    """nn.Linear with its initialisation beside it; the bias starts at zero.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        init: "xavier" as Wan's linears, "normal" N(0, 0.02) as its text and time embeddings, "zero" for the last
            projection of a new path, so that step 0 is what was there before; "default" is torch's own.
        gain: what "xavier" is multiplied by.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        init: Literal["xavier", "normal", "zero", "default"] = "xavier",
        gain: float = 1.0,
    ) -> None:
        self.init, self.gain = init, gain  # torch's constructor calls reset_parameters
        super().__init__(in_features, out_features)

    def reset_parameters(self) -> None:
        if self.init == "default":
            return super().reset_parameters()
        if self.init == "xavier":
            nn.init.xavier_uniform_(self.weight, self.gain)
        elif self.init == "normal":
            nn.init.normal_(self.weight, std=0.02)
        else:
            nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class LayerNorm(nn.LayerNorm):
    """Affine LayerNorm in float32."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPS)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return F.layer_norm(wide(x), self.normalized_shape, wide(self.weight), wide(self.bias), EPS).to(x.dtype)


class RMSNorm(nn.Module):
    """RMSNorm over the full width, across heads, as Wan normalises q and k. Stays in float32, where RoPE follows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        if x.is_cuda or torch.compiler.is_compiling():
            return F.rms_norm(wide(x), self.weight.shape, wide(self.weight), EPS)
        return _RMS.apply(wide(x), wide(self.weight))


class _RMS(torch.autograd.Function):
    """x / rms(x) * weight in as few passes as a CPU, where torch has no fused kernel, allows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        r = norm.square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        return (x * r).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,) = grads
        x, weight, r = ctx.saved_tensors
        unit = x * r
        gu = g * unit
        mean = (gu @ weight).unsqueeze(-1).div_(x.shape[-1])
        dx = torch.addcmul(g * weight, unit, mean, value=-1).mul_(r)
        return dx, gu.flatten(0, -2).sum(0)


def modulate(
    x: Float[Tensor, "b l d"], shift: Float[Tensor, "b f d"], scale: Float[Tensor, "b f d"]
) -> Float[Tensor, "b l d"]:
    """LayerNorm(x) (1 + scale) + shift (adaLN), each frame's modulation broadcast over its tokens."""
    if len(x) == 1 and shift.shape[1] == 1:  # one sample, one time: the modulation is a norm's weight and bias
        return F.layer_norm(wide(x), x.shape[-1:], 1 + scale.flatten(), shift.flatten(), EPS).to(x.dtype)
    h = F.layer_norm(wide(x), x.shape[-1:], eps=EPS)
    h = rearrange(h, "b (f s) d -> b f s d", f=shift.shape[1])
    h = torch.addcmul(shift[:, :, None], h, 1 + scale[:, :, None])
    return rearrange(h, "b f s d -> b (f s) d").to(x.dtype)


def gated_add(
    x: Float[Tensor, "b l d"], y: Float[Tensor, "b l d"], gate: Float[Tensor, "b f d"]
) -> Float[Tensor, "b l d"]:
    """x + gate y, each frame's gate broadcast over its tokens."""
    frames = gate.shape[1]
    x_, y_ = (rearrange(wide(z), "b (f s) d -> b f s d", f=frames) for z in (x, y))
    return rearrange(torch.addcmul(x_, y_, gate[:, :, None]), "b f s d -> b (f s) d").to(x.dtype)


def widely(layers: nn.Sequential, x: Tensor) -> Tensor:
    """The layers in float32 at least, whatever the autocast, and even where sharding or a half-precision model holds
    their weights in bfloat16."""
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):  # on meta there is none
        for layer in layers:
            if isinstance(layer, nn.Linear):
                weight = wide(layer.weight)
                x = F.linear(x.to(weight.dtype), weight, wide(layer.bias))
            else:
                x = layer(x)
    return x


def sinusoid(t: Float[Tensor, "b f"], dim: int) -> Float[Tensor, "b f n"]:
    """[cos, sin] of t 10000^(-i / (dim / 2)), in float64: t runs to 1000."""
    half = dim // 2
    frequencies = 10_000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angle = t.double()[..., None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], -1)


class _KeepInUse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (grads[0], *(torch.zeros_like(p) for p in ctx.saved_tensors))


def keep_in_use(x: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """x, with zero gradients for `parameters`: what adding 0 * f(parameters) gives, without computing f.

    DDP waits for a gradient from every parameter, so a path that a step does not take must still give one (Eq. 7's
    factor of 0, and decision 20, multiply rather than skip for the same reason).
    """
    return _KeepInUse.apply(x, *(p for p in parameters if p.requires_grad))


def untaken(path: nn.Module, x: Tensor, *also: Tensor) -> Tensor | None:
    """What a path adds to x in a step that does not take it: nothing, or in training a zero that keeps it in use.

    Args:
        path: of which no parameter is used.
        x: a tensor of the type and device of the update.
        also: what else is not used.
    """
    used = path.training and torch.is_grad_enabled()
    return keep_in_use(x.new_zeros(()), [*path.parameters(), *also]) if used else None


def initialise(module: nn.Module) -> None:
    """Re-initialise every layer in place, in the order of construction, so that equal seeds give equal weights."""
    with torch.no_grad():
        for part in module.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
