"""The dual-stream transformer (CCL Sec. 4): two Wan streams of equal depth, one interaction a block.

b batch, c channels, t latent frames or audio tokens, l text states. Times run from 0 (clean) to 1 (noise).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from math import inf
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ccl import arguments
from ccl.grid import Grid
from ccl.interaction.align import Rescale, audio_positions, video_positions
from ccl.interaction.base import Interaction, Site
from ccl.interaction.none import NoInteraction
from ccl.model.block import BlockCache, DualBlock, WanBlock
from ccl.model.prepared import Prepared
from ccl.model.stream import StreamConfig, StreamEnds
from ccl.nn.attention import Backend
from ccl.nn.layers import initialise
from ccl.nn.rope import Rotary, rotary, temporal_angles, video_angles
from ccl.types import AV, CLOSED, OPEN, STREAMS, Closed, Route, Stream


class DualStreamTransformer(nn.Module):
    """Velocities of both streams.

    Args:
        video: size of the video stream; None builds none, as stage 1 trains the audio stream alone.
        audio: size of the audio stream; None builds none.
        layers: blocks, the same number in both.
        head_dim: of a head, the same in both.
        text_dim: width of the text states.
        interaction: makes the interaction of a block from where it stands; a stream alone has and needs none.
        freq_dim: numbers of the sinusoid of a time.
        patch: latent pixels a video token, each way.
        attention: which kernel; see `ccl.nn.attention`.
        checkpointing: recompute each block in the backward pass, to save memory.
        rescale: of the audio positions in audio self-attention, so that both streams share one time axis; a number is
            the factor itself.

    Raises:
        ValueError: where a width does not divide into heads, or there are no layers, or no streams.
    """

    shown = False  # whether it takes `image`, a first picture, wherever there is video

    def __init__(
        self,
        *,
        video: StreamConfig | None = None,
        audio: StreamConfig | None = None,
        layers: int,
        head_dim: int,
        text_dim: int,
        interaction: Callable[[Site], Interaction] | None = None,
        freq_dim: int = 256,
        patch: int = 2,
        attention: Backend = "auto",
        checkpointing: bool = False,
        rescale: Rescale | float = "index",
    ) -> None:
        super().__init__()
        if video is None and audio is None:
            raise ValueError("both streams are null; the network needs at least one")
        if layers < 1:
            raise ValueError(f"layers is {layers}; the network needs at least one")
        for name, number in {"head_dim": head_dim, "text_dim": text_dim, "freq_dim": freq_dim, "patch": patch}.items():
            if number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1")
        if isinstance(rescale, float) and not 0 < rescale < inf:
            raise ValueError(f"rescale is {rescale}; a factor must be a positive number")
        for name, config in AV(video, audio)._asdict().items():
            if config is None:
                continue
            arguments.instance(name, config, StreamConfig, "a StreamConfig")
            if config.width % head_dim:
                raise ValueError(f"the {name} stream's width {config.width} is not a multiple of head_dim {head_dim}")
        sizes: AV[Any] = AV(video, audio)
        self.channels = self.channels_in = sizes.map(lambda config: config.channels)
        self.head_dim, self.text_dim, self.patch = head_dim, text_dim, patch
        self.checkpointing, self.rescale, self.backend = checkpointing, rescale, attention
        self.video, self.audio = AV.zip(
            lambda *of: self.stream_ends(*of, text_dim=text_dim, freq_dim=freq_dim), sizes, AV(*STREAMS)
        )
        width = sizes.map(lambda config: config.width)
        # One at a time: a config may claim more layers than there is memory, which is found out at the blocks.
        sites = (Site(width.video or 0, width.audio or 0, head_dim, i, layers, attention) for i in range(layers))
        alone = video is None or audio is None
        if interaction is None and not alone:
            raise ValueError("two streams need an `interaction`; ccl.interaction.NoInteraction keeps them apart")
        if interaction is not None and not callable(interaction):
            raise ValueError(f"interaction is {arguments.told(interaction)}; it must make one of a Site")
        make = NoInteraction if interaction is None or alone else interaction
        self.blocks = nn.ModuleList(
            DualBlock(*AV.zip(self.stream_block, sizes, AV(*STREAMS)), make(site)) for site in sites
        )
        self._timed = False  # whether times on a GPU have been looked at
        self._plans: dict[tuple[Grid, torch.device, torch.dtype], tuple[AV[Rotary], Any]] = {}

    # What another kind of backbone has of its own is made here.

    def stream_ends(self, config: StreamConfig, stream: Stream, *, text_dim: int, freq_dim: int) -> StreamEnds:
        """Embeddings and head of a stream."""
        patch = self.patch if stream == "video" else None
        return StreamEnds(config, patch=patch, text_dim=text_dim, freq_dim=freq_dim)

    def stream_block(self, config: StreamConfig, stream: Stream) -> WanBlock:
        """A block of a stream."""
        return WanBlock(config.width, config.ffn, self.head_dim, backend=self.backend)

    @property
    def _blocks(self) -> list[DualBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters."""
        return next(self.parameters()).dtype

    @property
    def ends(self) -> AV[Any]:
        return AV(self.video, self.audio)

    def forward(
        self,
        x: AV[Any],
        t: AV[Any],
        text: Float[Tensor, "b l n"] | AV[Any] | Prepared,
        *,
        grid: Grid,
        route: Route | Sequence[Route] | None = None,
        reference: AV[bool] = AV(False, False),
    ) -> AV[Any]:
        """Velocities, float32, in the shapes of x; float64 where weights and latents are.

        Args:
            x: noisy latents: video (B, C, t_v, H/8, W/8), audio (B, C, t_a). A stream that takes no part is None here,
                in t and in the result; the other stream's route to it must be closed.
            t: times in [0, 1], (B,), or (B, T) where every latent frame has its own.
            text: states of the prompts (B, L, text_dim), zeros where padded; or each stream's embedding of them
                (B, L, d); or what `prepare` made of them.
            grid: the clip's lengths, which x must have.
            route: who sees whom; a sequence gives one route to each of as many equal, consecutive chunks of the batch.
                None is open where both streams are there.
            reference: which stream is given: detached where the other reads it.

        Raises:
            ValueError: in words, where shapes, types, grid and routes do not fit each other, or times are out of range.
                Times on a GPU are looked at once, in the first call: to look makes it wait.
        """
        self._check_inputs(x, t, text, grid)
        if route is None:
            route = CLOSED if x.video is None or x.audio is None else OPEN
        routes = (route,) if isinstance(route, Route) else route
        self._check_routes(x, routes)
        arguments.instance("reference", reference, AV, "AV(video, audio), of bool")
        some = x.audio if x.video is None else x.video
        rope, plan = self._plan(grid, some.device)
        times = AV.zip(lambda x, t, ends: ends.times(t), x, t, self.ends)
        tokens = AV.zip(lambda x, ends: ends.patch_embedding(x), x, self.ends)
        e0 = times.map(lambda pair: pair[1])
        caches: Iterable[BlockCache]
        if isinstance(text, Prepared):
            caches = text.blocks
        else:
            embedded = text if isinstance(text, AV) else AV.zip(lambda x, ends: ends.text(text), x, self.ends)
            caches = repeat(BlockCache(embedded, None))
        common: dict[str, Any] = {"rope": rope, "plan": plan, "routes": routes, "reference": reference}
        for block, cache in zip(self.blocks, caches, strict=False):
            kwargs = {**common, "constants": cache.constants}
            if self.checkpointing and torch.is_grad_enabled():
                kwargs |= {"use_reentrant": False, "preserve_rng_state": False}
                tokens = checkpoint(block, tokens, e0, cache.text, **kwargs)
            else:
                tokens = block(tokens, e0, cache.text, **kwargs)
        return AV.zip(
            lambda x, pair, ends: ends.out(x, pair[0], grid.h, grid.w),
            tokens,
            times,
            self.ends,
        )

    @torch.no_grad()
    def prepare(self, text: Float[Tensor, "b l n"]) -> Prepared:
        """Keys and values of text and of context tokens, for every block: computed once a sampling run.

        Raises:
            ValueError: text is not states (B, L, text_dim).
        """
        arguments.tensor("text", text, "B", "L", self.text_dim)
        states = self.ends.map(lambda ends: ends.text(text))
        return Prepared(tuple(block.prepare(states) for block in self._blocks))

    def check(self, grid: Grid) -> dict[str, float]:
        """Figures of how the interaction's windows suit the grid (drift, coverage); warns where they do not."""
        return self._blocks[0].interaction.check(grid)

    @property
    def closed(self) -> Closed:
        """What a closed route of the interactions leaves."""
        return self._blocks[0].interaction.closed

    def init_weights(self) -> None:
        """Re-initialise every parameter in place from torch's global generator.

        After `to_empty` on a model built on the meta device this gives the weights that building it directly under the
        same seed would have given.
        """
        initialise(self)

    def cross_modal_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the interactions (lr 1e-4 in stage 2)."""
        for block in self._blocks:
            yield from block.interaction.parameters()

    def stream_parameters(self) -> Iterator[nn.Parameter]:
        """All others (lr 1e-5 in stage 2)."""
        for pair in (self.ends, *(block.streams for block in self._blocks)):
            for part in pair:
                if part is not None:
                    yield from part.parameters()

    def _plan(self, grid: Grid, device: torch.device) -> tuple[AV[Rotary], Any]:
        """Rotary tables and the interaction's plan, remembered by grid."""
        key = (grid, device, self.dtype)
        if key not in self._plans:
            if len(self._plans) >= 8:
                self._plans.clear()
            with torch.inference_mode(False), torch.no_grad():
                d = self.head_dim
                angle = AV(
                    video_angles(video_positions(grid), grid.h, grid.w, d),
                    temporal_angles(audio_positions(grid, self.rescale), d),
                )
                rope = angle.map(lambda a: rotary(a, self.dtype).to(device))
                plan = self._blocks[0].interaction.plan(grid, device)
            self._plans[key] = (rope, plan)
        return self._plans[key]

    def _check_inputs(self, x: Any, t: Any, text: Any, grid: Any) -> None:
        """By shapes and types alone, so that nothing waits for a GPU; but for the times, see `_check_times`."""
        self._check_pairs(x=x, t=t)
        if not isinstance(grid, Grid):
            raise ValueError(f"grid is a {type(grid).__name__}; it must be a Grid, the clip's lengths")
        if x.video is None and x.audio is None:
            raise ValueError("both streams are absent; the network needs at least one")
        if grid.patch != self.patch:
            raise ValueError(f"grid.patch is {grid.patch}, the network's patch is {self.patch}; they must be equal")
        expected = AV(
            (self.channels_in.video, grid.t_v, grid.latent_height, grid.latent_width),
            (self.channels_in.audio, grid.t_a),
        )
        some = next(latents for latents in x if latents is not None)
        batch = len(some) if isinstance(some, Tensor) and some.ndim else 0
        for name, latents, times, shape, ends in zip(AV._fields, x, t, expected, self.ends, strict=True):
            if latents is None:
                continue
            if ends is None:
                raise ValueError(f"{name} latents are given, but this network has no {name} stream")
            wanted = f"a tensor of floats (B, {str(shape)[1:]}"
            arguments.instance(f"x.{name}", latents, Tensor, wanted)
            if not latents.is_floating_point() or not latents.ndim or not len(latents):
                raise ValueError(f"x.{name} is {arguments.told(latents)}; it must be {wanted}")
            if tuple(latents.shape[1:]) != shape:
                raise ValueError(f"{name} latents have shape {tuple(latents.shape[1:])}; the grid asks for {shape}")
            if len(latents) != batch:
                raise ValueError(f"x has {batch} clips of video and {len(latents)} of audio; they must be as many")
            if latents.dtype == torch.float64 and self.dtype != torch.float64:
                raise ValueError(
                    f"{name} latents are float64 and the network's weights {str(self.dtype).removeprefix('torch.')}; "
                    "give x.float(), or make the network float64 with net.double()"
                )
            if times is None:
                raise ValueError(f"t.{name} is None, but there are {name} latents; give their times, ({batch},)")
            arguments.instance(f"t.{name}", times, Tensor, f"a tensor ({batch},)")
            if (
                times.ndim not in (1, 2)
                or len(times) != batch
                or (times.ndim == 2 and times.shape[1] not in (1, shape[1]))
            ):
                raise ValueError(
                    f"t.{name} has shape {tuple(times.shape)}; it must be ({batch},), or ({batch}, {shape[1]}) where "
                    "each latent frame has its own time"
                )
            self._check_times(name, times)
        self._check_text(text, x, batch)
        self._check_devices(x=x, t=t, text=AV(text, text) if isinstance(text, Tensor) else AV(None, None))

    def _check_pairs(self, **pairs: Any) -> None:
        for name, pair in pairs.items():
            if not isinstance(pair, AV):
                raise ValueError(f"{name} is a {type(pair).__name__}; it must be AV(video, audio), None for no stream")

    def _check_times(self, name: str, t: Tensor) -> None:
        """Refuse times out of [0, 1], as those of Wan's 0 to 1000."""
        if t.is_meta or torch.compiler.is_compiling() or type(t) is not Tensor or (t.is_cuda and self._timed):
            return
        self._timed = self._timed or t.is_cuda
        # A little more than 1, for times that were computed in half precision.
        if not bool(((t >= -1e-2) & (t <= 1.01)).all()):
            low, high = float(t.min()), float(t.max())
            hint = "; divide by 1000" if high > 2 else ""
            raise ValueError(f"t.{name} is from {low:g} to {high:g}; times run from 0 (clean) to 1 (noise){hint}")

    def _check_devices(self, **pairs: AV[Any]) -> None:
        """Refuse tensors that lie apart from each other, or from the network where its weights are whole."""
        own = next(self.parameters())
        place = own.device if type(own.data) is Tensor else next(x for x in pairs["x"] if x is not None).device
        for name, pair in pairs.items():
            for stream, tensor, latents in zip(AV._fields, pair, pairs["x"], strict=True):
                if latents is not None and tensor is not None and tensor.device != place:
                    what = name if name == "text" else f"{name}.{stream}"
                    raise ValueError(f"{what} is on {tensor.device}; it must be on {place}, with the network")

    def _check_text(self, text: Any, x: AV[Any], batch: int) -> None:
        if isinstance(text, Prepared):
            if len(text.blocks) != len(self.blocks):
                raise ValueError(f"text was prepared by {len(text.blocks)} blocks; this network has {len(self.blocks)}")
            made = next(len(kv[0]) for kv in text.blocks[0].text if kv is not None)
            if made != batch:
                raise ValueError(f"text was prepared of {made} prompts, and x has {batch} clips; they must be as many")
        elif isinstance(text, Tensor):
            if text.ndim != 3 or len(text) != batch or text.shape[2] != self.text_dim:
                raise ValueError(f"text has shape {tuple(text.shape)}; states ({batch}, L, {self.text_dim}) are needed")
        elif isinstance(text, AV):
            for name, states, latents, ends in zip(AV._fields, text, x, self.ends, strict=True):
                if latents is not None:
                    arguments.tensor(f"text.{name}", states, batch, "L", ends.head.modulation.shape[-1])
        else:
            raise ValueError(f"text is a {type(text).__name__}; it must be states (B, L, {self.text_dim}), or prepared")

    def _check_routes(self, x: AV[Any], routes: Any) -> None:
        if not isinstance(routes, list | tuple) or not all(isinstance(route, Route) for route in routes):
            raise ValueError(f"route is {arguments.told(routes)}; it must be a Route, or a list of them")
        for r in routes:
            if (x.audio is None and r.a2v) or (x.video is None and r.v2a):
                raise ValueError(f"{r} lets a stream see one that is absent; close that direction")
        batch = len(x.audio if x.video is None else x.video)
        if not routes or batch % len(routes):
            raise ValueError(f"a batch of {batch} does not divide into {len(routes)} routes")
