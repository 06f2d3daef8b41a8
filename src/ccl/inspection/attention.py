"""What the streams attend to of each other, measured over clips: the paper's Fig. 3 and Fig. 6 as figures.

For a noise level t, both streams are clips noised to t, both routes are open, and the prompt is the clip's own. Of each
token: the share of its attention that context tokens take; how much of the rest goes to the last audio token, 1 being
as much as to any other that it sees; by place in its window; and, of sound, the share that goes to the mouth. All are
means over heads. b clips, l query tokens, m tokens of the other stream.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ccl import flow
from ccl.evaluation.tables.statistics import Ratio, interval
from ccl.grid import Grid
from ccl.inspection.watch import Seen, watched
from ccl.rng import generator
from ccl.text.base import TextEncoder
from ccl.types import AV, STREAMS, View

Regions = Mapping[str, np.ndarray]
"""By name, which tokens of a stream, (l,) bool."""


@dataclass
class Look:
    """What was seen at one noise level.

    Args:
        time: t.
        measures: by (direction, measure, region): of each layer and clip, (layers, n), NaN where a clip has no such
            token. A measure is "other", the share of the other stream; "context" or another name of what there is
            besides; "last"; "on mouth"; "mouth of seen".
        places: by (direction, region): attention by place in a window, (layers, s), 1 where all places have the same.
        maps: by direction: (layers, l, m), on the other stream, of the first clip.
        rest: by direction: (layers, l), what is attended to beside it, of the first clip.
    """

    time: float
    measures: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict)
    places: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    rest: dict[str, np.ndarray] = field(default_factory=dict)

    def mean(self, direction: str, measure: str, region: str) -> dict[str, Any]:
        """Of a measure over layers and clips, as `figure` has it."""
        values = over_layers(self.measures.get((direction, measure, region)))
        return figure(values, np.ones(len(values)), measure)

    def ratio(self, direction: str, measure: str, above: str, below: str) -> dict[str, Any]:
        """Of a measure in one region to that in another, over the clips that have both, as `figure` has it."""
        top, bottom = (over_layers(self.measures.get((direction, measure, region))) for region in (above, below))
        return figure(top, bottom, measure)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, by names as `0.5/a2v/context/mouth`."""
        named: dict[tuple[str, ...], np.ndarray] = {(*key,): x for key, x in self.measures.items()}
        named |= {(direction, "places", region): x for (direction, region), x in self.places.items()}
        named |= {(direction, "map"): x for direction, x in self.maps.items()}
        named |= {(direction, "rest"): x for direction, x in self.rest.items()}
        return {"/".join((f"{self.time:g}", *name)): x for name, x in named.items()}


def figure(top: Float[np.ndarray, " n"], bottom: Float[np.ndarray, " m"], name: str) -> dict[str, Any]:
    """Of the clips that have both, how many, the ratio, and 95 % of it with clips resampled, where it has such; or why
    there is none.
    """
    there = ~np.isnan(top) & ~np.isnan(bottom) if len(top) == len(bottom) else np.zeros(0, bool)
    if not there.any():
        return {"not_measured": "no clip has such tokens"}
    ratio = Ratio(top[there], bottom[there])
    if not np.isfinite(ratio.value):
        return {"not_measured": "what it is divided by is 0"}
    low, high = interval([ratio], name)
    sure = {"low": low, "high": high} if np.isfinite([low, high]).all() else {}
    return {"value": ratio.value, **sure, "clips": int(there.sum())}


def over_layers(values: Float[np.ndarray, "y n"] | None) -> Float[np.ndarray, " n"]:
    """The mean over layers of each clip."""
    return np.zeros(0) if values is None else values.mean(0)


@torch.no_grad()
def look(
    net: Any,
    text: TextEncoder,
    z: AV[Tensor],
    prompts: Sequence[str],
    grid: Grid,
    regions: Sequence[AV[Any]],
    *,
    time: float,
    seed: int = 0,
    at_once: int = 4,
) -> Look:
    """What a model attends to in clips.

    Args:
        net: a DualStreamTransformer of both streams, in `eval`.
        text: its text encoder.
        z: latents (B, C, T, ...) of the clips.
        prompts: of the clips.
        grid: of the clips.
        regions: of each clip, which tokens of each stream are what (Regions); a "mouth" is also looked for as keys.
        time: from above 0 (clean) to 1.
        seed: of the noise.
        at_once: clips in a forward.
    """
    found = Look(time)
    measures: dict[tuple[str, str, str], list[list[float]]] = defaultdict(list)
    places: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for start in range(0, len(prompts), at_once):
        rows = range(start, min(start + at_once, len(prompts)))
        clean: AV[Any] = AV(*(x[rows.start : rows.stop] for x in z))
        noise: AV[Any] = AV(*(drawn(stream, x, rows, seed) for stream, x in zip(STREAMS, clean, strict=True)))
        t = clean.map(lambda x: x.new_full((len(x),), time))
        with watched(net) as seen:
            net(AV.zip(flow.interpolate, clean, noise, t), t, text(list(prompts[rows.start : rows.stop])),
                grid=grid, view=View())  # fmt: skip
        for place, row in enumerate(rows):
            layers: dict[tuple[str, str, str], list[float]] = defaultdict(list)
            by_place: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
            for one in seen:
                asking, asked = regions[row] if one.direction == "a2v" else reversed(regions[row])
                for name, of_token in measured(one, place, asked.get("mouth")).items():
                    for region, tokens in asking.items():
                        layers[one.direction, name, region].append(mean_of(of_token[tokens]))
                for region, tokens in asking.items():
                    by_place[one.direction, region].append(by_places(one.other[place].numpy(), tokens))
            for key, values in layers.items():
                measures[key].append(values)
            for where, of_layers in by_place.items():
                places[where].append(np.stack(of_layers))
        if not start:
            for direction in dict.fromkeys(one.direction for one in seen):
                of = [one for one in seen if one.direction == direction]
                found.maps[direction] = np.stack([one.other[0].numpy() for one in of])
                if of[0].rest:
                    found.rest[direction] = np.stack([sum(x[0].numpy() for x in one.rest.values()) for one in of])
    found.measures = {key: np.array(values).T for key, values in measures.items()}
    found.places = {key: mean_over(values) for key, values in places.items()}
    return found


def drawn(stream: str, x: Tensor, rows: Sequence[int], seed: int) -> Tensor:
    noise = [torch.randn(x.shape[1:], generator=generator("inspect", stream, seed, row)) for row in rows]
    return torch.stack(noise).to(x.device)


def measured(seen: Seen, row: int, mouth: np.ndarray | None) -> dict[str, np.ndarray]:
    """Of each query token of a clip, (l,), NaN where it has no such measure."""
    weights = seen.other[row].double().numpy()
    there, total = weights > 0, weights.sum(-1)
    count = there.sum(-1)
    found = {name: x[row].double().numpy() for name, x in seen.rest.items()} | {"other": total}
    with np.errstate(divide="ignore", invalid="ignore"):
        if seen.direction == "a2v":
            found["last"] = np.where(there[:, -1], weights[:, -1] * count / total, np.nan)
        if mouth is not None and seen.direction == "v2a":
            looked = there[:, mouth].any(-1)
            found["on mouth"] = np.where(looked, weights[:, mouth].sum(-1) / total, np.nan)
            found["mouth of seen"] = np.where(looked, there[:, mouth].sum(-1) / count, np.nan)
    return found


def by_places(weights: Float[np.ndarray, "l m"], tokens: np.ndarray) -> Float[np.ndarray, " s"]:
    """Attention to each place of a window, over the tokens whose windows are whole; 1 is as much as to any other."""
    there = weights > 0
    count = there.sum(-1)
    widest = int(count.max())
    rows = np.flatnonzero(tokens & (count == widest))
    if not len(rows):
        return np.full(widest, np.nan)
    columns = there[rows].argmax(-1)[:, None] + np.arange(widest)
    inside = np.take_along_axis(weights[rows], columns.clip(max=weights.shape[1] - 1), -1).astype(float)
    return (inside / inside.mean(-1, keepdims=True)).mean(0)


def mean_of(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan


def mean_over(values: Sequence[np.ndarray]) -> np.ndarray:
    """Of what is there."""
    stack = np.stack(values)
    there = ~np.isnan(stack)
    return np.where(there, stack, 0).sum(0) / np.maximum(there.sum(0), 1)
