"""One guided velocity out of a rule's passes: a single batched forward, summed in float32 (CCL Sec. 4.3).

B clips, P passes, L text states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ccl.grid import Grid
from ccl.types import AV, Pass

#: (x, t) -> velocity, where t is (B,) or, with its own time for each latent frame, (B, T) in each stream.
NetVelocity = Callable[[AV[Any], AV[Any]], AV[Any]]


def guided(
    net: Any,
    texts: Mapping[str, Tensor],
    weights: Mapping[Pass, AV[float]],
    *,
    grid: Grid,
    generated: AV[bool] = AV(True, True),
    batched: bool = True,
    cached: bool = True,
    extras: dict[str, Any] | None = None,
) -> NetVelocity:
    """The velocity (x, t) -> sum over passes of weight * net(x, t, text of the pass, view of the pass).

    Args:
        net: a DualStreamTransformer.
        texts: states (B, L, D) of the "positive" and the "negative" prompts.
        weights: a guidance rule's table for the generation task's route.
        grid: lengths of the clips.
        generated: the streams whose velocity is wanted. A pass that weighs nothing in them is not run, and the velocity
            of the others is 0.
        batched: all passes in one forward of P*B clips; else one after another, which needs less memory.
        cached: compute keys and values of text and context tokens once, here, not at every step. Needs the network's
            own parameters at hand, so not under FSDP.
        extras: what the network reads beside latents and text in every pass, of B clips.
    """
    used = {key: w for key, w in weights.items() if any(g and abs(x) > 1e-9 for g, x in zip(generated, w, strict=True))}
    groups = [list(used)] if batched else [[key] for key in used]
    states: list[Any] = [read(texts, group) for group in groups]
    brought = [tiled(extras or {}, len(group)) for group in groups]
    if cached:
        states = [net.prepare(text, extras=more) for text, more in zip(states, brought, strict=True)]

    def velocity(x: AV[Any], t: AV[Any]) -> AV[Any]:
        total = x.map(lambda z: torch.zeros_like(z, dtype=torch.float32))
        for group, text, more in zip(groups, states, brought, strict=True):
            views = [key.view for key in group]
            v = net(tiled(x, len(group)), tiled(t, len(group)), text, grid=grid, view=views, extras=more).velocity
            scales = AV(*([used[key][i] if generated[i] else 0.0 for key in group] for i in range(2)))
            total = AV.zip(lambda a, b: a + b, total, AV.zip(weighted, v, scales))
        return total

    return velocity


def read(texts: Mapping[str, Tensor], passes: Sequence[Pass]) -> Tensor | AV[Any]:
    """States of all passes, one after another; for each stream where one pass's streams read different texts."""
    each = AV(*(torch.cat([texts[one.text[i]] for one in passes]) for i in range(2)))
    return each.video if all(one.text.video == one.text.audio for one in passes) else each


def tiled(tree: Any, count: int) -> Any:
    """The batch `count` times over, one copy a pass."""
    return tree_map_only(Tensor, lambda z: torch.cat([z] * count), tree)


def weighted(v: Float[Tensor, "pb ..."], scales: list[float]) -> Float[Tensor, "b ..."]:
    """Sum of the P predictions that a batched forward stacked, in float32: differences of passes lose bits in bf16."""
    passes = rearrange(v.float(), "(p b) ... -> p b ...", p=len(scales))
    return sum(scale * one for scale, one in zip(scales, passes, strict=True))
