"""Ovi's published layout, and what its two towers compute, written out from their weights alone (Ovi 5b69b25)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ccl.types import AV

Shapes = dict[str, tuple[int, ...]]
FACTOR = 0.19676  # of the audio positions


def shapes(width: int, ffn: int, channels: AV[int], *, layers: int, hidden: int, text: int, freq: int) -> Shapes:
    """Every parameter of the file, of towers of one width."""
    found: Shapes = {}
    for tower, c, patch in (("video_model", channels.video, 4), ("audio_model", channels.audio, 1)):
        linears = {"time_embedding.0": (width, freq), "time_embedding.2": (width, width)}
        linears |= {"text_embedding.0": (width, text), "text_embedding.2": (width, width)}
        linears |= {"time_projection.1": (6 * width, width), "head.head": (c * patch, width)}
        bare: Shapes = {"head.modulation": (1, 2, width)}
        if tower == "video_model":
            linears["patch_embedding"] = (width, c, 1, 2, 2)
        else:
            linears["patch_embedding.0"] = (width, c, 7)
            for w, shape in {"w1": (hidden, width, 7), "w2": (width, hidden, 7), "w3": (hidden, width, 7)}.items():
                bare[f"patch_embedding.2.{w}.weight"] = shape
        for i in range(layers):
            at = f"blocks.{i}."
            bare[f"{at}modulation.modulation"] = (1, 6, width)
            linears |= {f"{at}ffn.0": (ffn, width), f"{at}ffn.2": (width, ffn)}
            for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"):
                linears |= {at + name: (width, width), at + name.replace("self", "cross"): (width, width)}
            linears |= {f"{at}cross_attn.{name}_fusion": (width, width) for name in "kv"}
            for name in ("norm3", "cross_attn.pre_attn_norm_fusion"):
                bare |= {f"{at}{name}.{kind}": (width,) for kind in ("weight", "bias")}
            for name in ("self_attn.norm_q", "self_attn.norm_k", "cross_attn.norm_q", "cross_attn.norm_k"):
                bare[f"{at}{name}.weight"] = (width,)
            bare[f"{at}cross_attn.norm_k_fusion.weight"] = (width,)
        for name, shape in linears.items():
            bare |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        found |= {f"{tower}.{name}": shape for name, shape in bare.items()}
    return found


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights; norms around 1."""
    g = torch.Generator().manual_seed(seed)
    return {
        name: 0.1 * torch.randn(shape, generator=g) + ("norm" in name and name.endswith("weight"))
        for name, shape in shapes.items()
    }


class Tower:
    """One stream, its tokens as they pass through the blocks."""

    def __init__(self, state: dict[str, Tensor], name: str, x: Tensor, t: Tensor, text: Tensor, head: int) -> None:
        """x (b, c, f, h, w) or (b, c, f), t (b, f)."""
        self.state, self.name, self.head = state, f"{name}_model.", head
        turning = head - 4 * (head // 6)
        if name == "video":
            z = F.conv3d(x, self["patch_embedding.weight"], self["patch_embedding.bias"], stride=(1, 2, 2))
            self.grid = z.shape[2:]
            axes = [
                [
                    place / 10_000 ** (2 * i / size)
                    for place, size in zip(at, sizes, strict=True)
                    for i in range(size // 2)
                ]
                for at in product(*map(range, self.grid))
                for sizes in [(turning, (head - turning) // 2, (head - turning) // 2)]
            ]
            self.x = z.flatten(2).transpose(1, 2)
        else:
            z = F.silu(F.conv1d(x, self["patch_embedding.0.weight"], self["patch_embedding.0.bias"], padding=3))
            gate, up = (F.conv1d(z, self[f"patch_embedding.2.{w}.weight"], padding=3) for w in ("w1", "w3"))
            z = F.conv1d(F.silu(gate) * up, self["patch_embedding.2.w2.weight"], padding=3)
            self.grid = z.shape[2:]
            still = [0.0] * ((head - turning) // 2)
            axes = [
                [FACTOR * j / 10_000 ** (2 * i / turning) for i in range(turning // 2)] + still
                for j in range(*self.grid)
            ]
            self.x = z.transpose(1, 2)
        angle = torch.tensor(axes, dtype=torch.float64)
        self.turns = torch.polar(torch.ones_like(angle), angle)[:, None]
        half = self["time_embedding.0.weight"].shape[1] // 2
        sines = 1000 * t.double()[..., None] * 10_000.0 ** (-torch.arange(half).double() / half)
        sines = torch.cat([sines.cos(), sines.sin()], -1).to(x.dtype)
        e = self.linear("time_embedding.2", F.silu(self.linear("time_embedding.0", sines)))
        self.e = e.repeat_interleave(self.x.shape[1] // t.shape[1], 1)  # of each token
        self.e0 = self.linear("time_projection.1", F.silu(self.e)).unflatten(-1, (6, -1))
        self.text = self.linear("text_embedding.2", F.gelu(self.linear("text_embedding.0", text), approximate="tanh"))

    def __getitem__(self, name: str) -> Tensor:
        return self.state[self.name + name]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, x: Tensor, name: str | None = None) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return x if name is None else x * self[f"{name}.weight"] + self[f"{name}.bias"]

    def rms(self, name: str, x: Tensor) -> Tensor:
        return (x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self[f"{name}.weight"]).unflatten(
            -1, (-1, self.head)
        )

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2))) * self.turns
        return torch.view_as_real(pairs).flatten(-2).to(x.dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every query over every key, head by head."""
        v = v.unflatten(-1, (-1, self.head))
        each = [
            (q[:, :, h] @ k[:, :, h].transpose(1, 2) / self.head**0.5).softmax(-1) @ v[:, :, h]
            for h in range(q.shape[2])
        ]
        return torch.cat(each, -1)

    def reads_itself(self, at: str) -> None:
        shift, scale, gate = (self[f"{at}.modulation.modulation"][:, None] + self.e0).unbind(2)[:3]
        y, at = self.norm(self.x) * (1 + scale) + shift, f"{at}.self_attn"
        q, k = (self.turned(self.rms(f"{at}.norm_{name}", self.linear(f"{at}.{name}", y))) for name in "qk")
        self.x = self.x + gate * self.linear(f"{at}.o", self.attend(q, k, self.linear(f"{at}.v", y)))

    def reads_text_and(self, other: Tensor | None, turned: Callable[[Tensor], Tensor] | None, at: str) -> None:
        """The text and, by the same queries, the other tower's tokens; then the feed-forward network."""
        there = f"{at}.cross_attn"
        q = self.rms(f"{there}.norm_q", self.linear(f"{there}.q", self.norm(self.x, f"{at}.norm3")))
        k = self.rms(f"{there}.norm_k", self.linear(f"{there}.k", self.text))
        read = self.attend(q, k, self.linear(f"{there}.v", self.text))
        if other is not None and turned is not None:
            y = self.norm(other, f"{there}.pre_attn_norm_fusion")
            k = turned(self.rms(f"{there}.norm_k_fusion", self.linear(f"{there}.k_fusion", y)))
            read = read + self.attend(self.turned(q), k, self.linear(f"{there}.v_fusion", y))
        self.x = self.x + self.linear(f"{there}.o", read)
        shift, scale, gate = (self[f"{at}.modulation.modulation"][:, None] + self.e0).unbind(2)[3:]
        inner = self.linear(f"{at}.ffn.0", self.norm(self.x) * (1 + scale) + shift)
        self.x = self.x + gate * self.linear(f"{at}.ffn.2", F.gelu(inner, approximate="tanh"))

    def out(self) -> Tensor:
        shift, scale = (self["head.modulation"][:, None] + self.e[:, :, None]).unbind(2)
        y = self.linear("head.head", self.norm(self.x) * (1 + scale) + shift)
        if len(self.grid) == 1:
            return y.transpose(1, 2)
        y = y.unflatten(-1, (2, 2, -1)).unflatten(1, self.grid)
        return torch.einsum("bfhwpqc->bcfhpwq", y).flatten(5).flatten(3, 4)


def ovi(
    state: dict[str, Tensor], x: AV[Tensor], t: AV[Tensor], text: AV[Tensor], *, head: int, layers: int
) -> AV[Tensor]:
    """Velocities of both towers, or of the one that is there.

    Args:
        state: weights, in the published names.
        x: video (b, c, f, h, w), audio (b, c, l); None for no tower.
        t: times from 0 to 1, (b, f) and (b, l).
        text: states, (b, m, n), of each.
        head: width of a head.
        layers: blocks.
    """
    towers = {
        n: Tower(state, n, *args, head) for n, *args in zip(x._fields, x, t, text, strict=True) if args[0] is not None
    }
    for i in range(layers):
        at = f"blocks.{i}"
        for tower in towers.values():
            tower.reads_itself(at)
        before = {name: (tower.x, tower.turned) for name, tower in towers.items()}
        for name, tower in towers.items():
            other, turned = next((pair for which, pair in before.items() if which != name), (None, None))
            tower.reads_text_and(other, turned, at)
    return AV(*(towers[name].out() if name in towers else None for name in x._fields))
