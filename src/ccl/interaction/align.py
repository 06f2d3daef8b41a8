"""Which tokens of the other stream a token may see, and where both streams lie on one time axis (CCL Sec. 4.1, TARP).

a2v: the audio window of a video frame has its centre token m_i and s = 3c tokens, c = floor(t_a / t_v). v2a: an audio
token sees the one nearest frame, floor(j t_v / t_a). Windows are index lists, batched by frame, never a mask over all
pairs of tokens.
g groups, q queries of a group, k keys of a group.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ccl import arguments
from ccl.grid import Grid
from ccl.nn.rope import Rotary, rotary, temporal_angles, video_angles
from ccl.nn.split import Split
from ccl.types import AV

Centre = Literal["paper", "proportional", "true"]
Edges = Literal["mask", "shift", "clamp"]
Rescale = Literal["index", "duration", "none"]


class Groups(NamedTuple):
    """One direction's attention, cut into groups of queries that share their keys.

    Where `queries` or `keys` is None, the tokens are cut in their order into `num` equal parts, one for each group.

    Args:
        num: groups of a clip.
        queries: tokens of each group. A group that is short is padded with any token.
        back: for each token, the place of its answer when the answers of all groups, (g q), stand in a row.
        keys: tokens of the other stream that a group sees.
        mask: which of `keys` lie within the clip, or None where all do.
        whole: (first, end) of the longest run of groups whose keys all do, where there is a mask.
    """

    num: int
    queries: Int[Tensor, "g q"] | None = None
    back: Int[Tensor, " l"] | None = None
    keys: Int[Tensor, "g k"] | None = None
    mask: Bool[Tensor, "g k"] | None = None
    whole: tuple[int, int] = (0, 0)

    def seen(self, queries: int, keys: int) -> Float[Tensor, "l m"]:
        """How often each of so many queries has each of so many keys before it; 0 where it may not see it."""
        asked = torch.arange(queries) if self.queries is None else self.queries
        asked = asked.reshape(self.num, -1)
        index = (torch.arange(keys) if self.keys is None else self.keys.cpu()).reshape(self.num, -1)
        inside = torch.ones_like(index) if self.mask is None else self.mask.cpu().long()
        of_group = torch.zeros(self.num, keys, dtype=torch.long).scatter_add_(1, index, inside)
        at = torch.arange(queries) if self.back is None else self.back.cpu()
        device = next((x.device for x in (self.keys, self.queries) if x is not None), None)
        return of_group[at // asked.shape[1]].float().to(device)


def longest_run(fits: list[bool]) -> tuple[int, int]:
    """(first, end) of the longest run of true ones."""
    best, first = (0, 0), 0
    for i, fit in enumerate(fits):
        if not fit:
            first = i + 1
        elif i + 1 - first > best[1] - best[0]:
            best = (first, i + 1)
    return best


def keyed(keys: Int[Tensor, "g k"], inside: Bool[Tensor, "g k"], **queries: Any) -> Groups:
    """Groups of these keys, with a mask where not all lie within the clip; `queries` and `back` as of `Groups`."""
    if bool(inside.all()):
        return Groups(len(keys), keys=keys, **queries)
    return Groups(len(keys), keys=keys, mask=inside, whole=longest_run(inside.all(1).tolist()), **queries)


def frame_queries(grid: Grid) -> tuple[Int[Tensor, "g q"], Int[Tensor, " l"]]:
    """`Groups.queries` and `Groups.back` of audio tokens by the latent frame in which they lie, floor(j t_v / t_a)."""
    frame = torch.arange(grid.t_a) * grid.t_v // grid.t_a
    counts = torch.bincount(frame, minlength=grid.t_v)
    first = counts.cumsum(0) - counts
    room = torch.arange(int(counts.max()))
    queries = (first[:, None] + room).clamp(max=grid.t_a - 1)
    return queries, frame * len(room) + torch.arange(grid.t_a) - first[frame]


class Directions(NamedTuple):
    """A value for each direction of exchange."""

    a2v: Groups
    v2a: Groups


def check_rescale(rescale: Rescale | float) -> None:
    """ValueError where it is neither one of the words nor a positive factor."""
    if isinstance(rescale, str):
        if rescale not in get_args(Rescale):
            raise ValueError(f"rescale is {rescale!r}; it must be {', '.join(get_args(Rescale))} or a positive number")
    elif not isinstance(rescale, float | int) or isinstance(rescale, bool) or not 0 < rescale < inf:
        raise ValueError(f"rescale is {arguments.described(rescale)}; a factor must be a positive number")


def audio_positions(grid: Grid, rescale: Rescale | float = "index", *, before: int = 0) -> Float[Tensor, " l"]:
    """Times of the audio tokens in units of latent frames (decision 1), and of as many that stand before them.

    "index" is the paper's j t_v / t_a; "duration" is Ovi's j t_v / (seconds rate), 0.5 % apart; "none" leaves j;
    a number is the factor itself.
    """
    j = torch.arange(-before, grid.t_a, dtype=torch.float64)
    if not isinstance(rescale, str):
        return j * rescale
    if rescale == "none":
        return j
    return j * grid.t_v / (grid.t_a if rescale == "index" else grid.seconds * grid.latent_rate)


def video_positions(grid: Grid) -> Float[Tensor, " l"]:
    return torch.arange(grid.t_v, dtype=torch.float64)


def own_angles(positions: AV[Tensor], grid: Grid, head_dim: AV[int]) -> AV[Tensor]:
    """How self-attention turns each stream: video by time, height and width, audio by time on that share of its heads.

    Args:
        positions: times of the latent frames and of the audio tokens.
        grid: of the clip.
        head_dim: of a head of each stream.
    """
    return AV(
        video_angles(positions.video, grid.h, grid.w, head_dim.video), temporal_angles(positions.audio, head_dim.audio)
    )


def rotary_pairs(
    head_dim: AV[int], angles: Callable[[int], AV[Tensor]], dtype: torch.dtype, device: torch.device
) -> AV[tuple[Rotary, Rotary]]:
    """For each stream that asks, the rotary tables of its own tokens and of the other stream's.

    Args:
        head_dim: of a head of each stream; who asks has them, the other's tokens are read in as wide ones.
        angles: how the tokens of both turn in heads of a width.
        dtype: of what is turned.
        device: of the tables.
    """
    tables = {d: angles(d).map(lambda angle: rotary(angle, dtype).to(device)).pairs for d in set(head_dim)}
    return AV(tables[head_dim.video].video, tables[head_dim.audio].audio)


def split_pairs(rope: AV[tuple[Rotary, Rotary]], by: Split) -> AV[tuple[Rotary, Rotary]]:
    """`rotary_pairs` of those of the video's tokens that are here."""
    (asking, sound), (hearing, pictures) = rope
    return AV((by.own(asking, 0), sound), (hearing, by.own(pictures, 0)))


class Alignment(ABC):
    """How the two streams meet: who sees which tokens, and at which positions. A new one is a subclass."""

    @abstractmethod
    def groups(self, grid: Grid) -> Directions:
        """The groups of both directions."""

    @abstractmethod
    def positions(self, grid: Grid) -> AV[Tensor]:
        """Times of the latent frames and of the audio tokens, for RoPE in the interaction."""

    def check(self, grid: Grid) -> dict[str, float]:
        """Figures for the log; warns where the grid suits badly."""
        return {}


class Global(Alignment):
    """Every token sees the whole other stream (the baseline without TARP).

    Args:
        rescale: of the audio positions; "none" is standard RoPE on both streams, as before TARP.
    """

    def __init__(self, rescale: Rescale | float = "none") -> None:
        check_rescale(rescale)
        self.rescale = rescale

    def groups(self, grid: Grid) -> Directions:
        return Directions(Groups(1), Groups(1))

    def positions(self, grid: Grid) -> AV[Tensor]:
        return AV(video_positions(grid), audio_positions(grid, self.rescale))


@dataclass(frozen=True)
class WindowReport:
    """What the windows of a grid do.

    Args:
        drift: error of the last frame's window centre, seconds; negative is early.
        half_window: seconds.
        unattended: audio tokens that no frame sees.
    """

    drift: float
    half_window: float
    unattended: tuple[int, ...]


class TARP(Alignment):
    """Temporally Aligned RoPE and Partitioning.

    Args:
        centre: of the audio window of frame i: "paper" floor(c/2 + c i), which drifts where t_v does not divide t_a;
            "proportional" floor((i + 0.5) t_a / t_v); "true" the token under the middle of the frame's pictures, of
            which the causal codec's frame 0 holds one.
        edges: keys out of range are masked ("mask"), or the window is moved inside ("shift"), or they repeat the first
            or last token ("clamp").
        rescale: of the audio positions; see `audio_positions`.
        span: tokens of a window, in c: s = 3c is the paper's.
    """

    def __init__(
        self,
        centre: Centre = "paper",
        edges: Edges = "mask",
        rescale: Rescale | float = "index",
        span: int = 3,
    ) -> None:
        check_rescale(rescale)
        arguments.number("span", span, 1, 1000, whole=True)
        self.centre: Centre = centre
        self.edges: Edges = edges
        self.rescale = rescale
        self.span = span

    def positions(self, grid: Grid) -> AV[Tensor]:
        return AV(video_positions(grid), audio_positions(grid, self.rescale))

    def centres(self, grid: Grid) -> list[int]:
        """m_i of every latent frame."""
        c, t_v, t_a = grid.c, grid.t_v, grid.t_a
        if self.centre == "paper":
            return [(c + 2 * c * i) // 2 for i in range(t_v)]
        if self.centre == "proportional":
            return [(2 * i + 1) * t_a // (2 * t_v) for i in range(t_v)]
        n = grid.stride_time
        middles = [0.5, *(1 + n * (i - 0.5) for i in range(1, t_v))]  # in pictures
        return [min(int(m / grid.fps * grid.latent_rate), t_a - 1) for m in middles]

    def windows(self, grid: Grid) -> tuple[Int[Tensor, "g k"], Bool[Tensor, "g k"]]:
        """Audio tokens of every frame's window, s of them, and which of them lie within the clip."""
        size, t_a = self.span * grid.c, grid.t_a
        start = torch.tensor(self.centres(grid)) - size // 2
        if self.edges == "shift":
            start = start.clamp(0, max(t_a - size, 0))
        index = start[:, None] + torch.arange(size)
        inside = (index >= 0) & (index < t_a)
        if self.edges == "clamp":
            inside = torch.ones_like(inside)
        return index.clamp(0, t_a - 1), inside

    def groups(self, grid: Grid) -> Directions:
        a2v = keyed(*self.windows(grid))
        # v2a: the queries of a frame are grouped, rather than its h*w keys repeated for each of them.
        queries, back = frame_queries(grid)
        return Directions(a2v, Groups(grid.t_v, queries=queries, back=back))

    def report(self, grid: Grid) -> WindowReport:
        keys, inside = self.windows(grid)
        seen = set(keys[inside].tolist())
        middle = (grid.t_v - 0.5) * grid.seconds / grid.t_v
        return WindowReport(
            drift=(self.centres(grid)[-1] + 0.5) / grid.latent_rate - middle,
            half_window=self.span / 2 * grid.c / grid.latent_rate,
            unattended=tuple(j for j in range(grid.t_a) if j not in seen),
        )

    def check(self, grid: Grid) -> dict[str, float]:
        """Figures of `report`; a UserWarning with the numbers where tokens stay unseen or the drift is too large."""
        report = self.report(grid)
        problems = []
        if lost := report.unattended:
            problems.append(f"{len(lost)} of {grid.t_a} audio tokens ({lost[0]}-{lost[-1]}) are seen by no frame")
        if abs(report.drift) > report.half_window:
            problems.append(
                f"the last frame's window is {report.drift:+.2f} s off, more than its half ({report.half_window:.2f} s)"
            )
        if problems:
            warnings.warn(
                f"TARP centre '{self.centre}' on t_v {grid.t_v}, t_a {grid.t_a}: {'; '.join(problems)}. "
                "Centre 'proportional' does not drift.",
                UserWarning,
                stacklevel=2,
            )
        return {
            "window/drift_seconds": report.drift,
            "window/half_seconds": report.half_window,
            "window/unattended": float(len(report.unattended)),
        }
