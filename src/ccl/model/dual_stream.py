"""The dual-stream transformer (CCL Sec. 4): two Wan streams of equal depth, one interaction a block.

b batch, c channels, t latent frames or audio tokens, l text states. Times run from 0 (clean) to 1 (noise).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ccl.grid import Grid
from ccl.interaction.align import Rescale, audio_positions, video_positions
from ccl.interaction.base import Interaction
from ccl.interaction.cross import CrossAttention
from ccl.interaction.none import NoInteraction
from ccl.model.block import BlockCache, DualBlock, SelfAttention, WanBlock
from ccl.model.prepared import Prepared
from ccl.model.stream import StreamConfig, StreamEnds
from ccl.nn.attention import Backend
from ccl.nn.layers import initialise
from ccl.nn.rope import Rotary, rotary, temporal_angles, video_angles
from ccl.types import AV, OPEN, STREAMS, Closed, Route, Stream, Widths


class DualStreamTransformer(nn.Module):
    """Velocities of both streams.

    Args:
        video: size of the video stream; None builds none, as stage 1 trains the audio stream alone.
        audio: size of the audio stream; None builds none.
        layers: blocks, the same number in both.
        head_dim: of a head, the same in both.
        text_dim: width of the text states.
        interaction: makes the interaction of a block from the streams' widths; a stream alone has none.
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
        video: StreamConfig | None,
        audio: StreamConfig | None,
        layers: int,
        head_dim: int,
        text_dim: int,
        interaction: Callable[[Widths], Interaction],
        freq_dim: int = 256,
        patch: int = 2,
        attention: Backend = "auto",
        checkpointing: bool = False,
        rescale: Rescale | float = "index",
    ) -> None:
        super().__init__()
        if video is None and audio is None:
            raise ValueError("both streams are null; the network needs at least one")
        for name, config in AV(video, audio)._asdict().items():
            if config is not None and config.width % head_dim:
                raise ValueError(f"the {name} stream's width {config.width} is not a multiple of head_dim {head_dim}")
        if layers < 1:
            raise ValueError(f"layers is {layers}; the network needs at least one")
        sizes: AV[Any] = AV(video, audio)
        self.channels = self.channels_in = sizes.map(lambda config: config.channels)
        self.head_dim, self.text_dim, self.patch = head_dim, text_dim, patch
        self.checkpointing, self.rescale = checkpointing, rescale
        self.video, self.audio = AV.zip(
            lambda *of: self.stream_ends(*of, text_dim=text_dim, freq_dim=freq_dim), sizes, AV(*STREAMS)
        )
        width = sizes.map(lambda config: config.width)
        widths = Widths(width.video or 0, width.audio or 0, head_dim)
        make = interaction if video is not None and audio is not None else NoInteraction
        self.blocks = nn.ModuleList(
            DualBlock(*AV.zip(self.stream_block, sizes, AV(*STREAMS)), make(widths)) for _ in range(layers)
        )
        for module in self.modules():
            if isinstance(module, SelfAttention | CrossAttention):
                module.backend = attention
        self._plans: dict[tuple[Grid, torch.device], tuple[AV[Rotary], Any]] = {}

    # What another kind of backbone has of its own is made here.

    def stream_ends(self, config: StreamConfig, stream: Stream, *, text_dim: int, freq_dim: int) -> StreamEnds:
        """Embeddings and head of a stream."""
        patch = self.patch if stream == "video" else None
        return StreamEnds(config, patch=patch, text_dim=text_dim, freq_dim=freq_dim)

    def stream_block(self, config: StreamConfig, stream: Stream) -> WanBlock:
        """A block of a stream."""
        return WanBlock(config.width, config.ffn, self.head_dim)

    @property
    def _blocks(self) -> list[DualBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

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
        route: Route | Sequence[Route] = OPEN,
        reference: AV[bool] = AV(False, False),
    ) -> AV[Any]:
        """Velocities, float32, in the shapes of x.

        Args:
            x: noisy latents: video (B, C, t_v, H/8, W/8), audio (B, C, t_a). A stream that takes no part is None here,
                in t and in the result; the other stream's route to it must be closed.
            t: times, (B,), or (B, T) where every latent frame has its own.
            text: states of the prompts (B, L, text_dim), zeros where padded; or each stream's embedding of them
                (B, L, d); or what `prepare` made of them.
            grid: the clip's lengths, which x must have.
            route: who sees whom; a sequence gives one route to each of as many equal, consecutive chunks of the batch.
            reference: which stream is given: detached where the other reads it.

        Raises:
            ValueError: in words, where shapes, grid and routes do not fit each other.
        """
        routes = (route,) if isinstance(route, Route) else tuple(route)
        self._validate(x, grid, routes)
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
        """Keys and values of text and of context tokens, for every block: computed once a sampling run."""
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
        key = (grid, device)
        if key not in self._plans:
            if len(self._plans) >= 8:
                self._plans.clear()
            with torch.inference_mode(False), torch.no_grad():
                d = self.head_dim
                angle = AV(
                    video_angles(video_positions(grid), grid.h, grid.w, d),
                    temporal_angles(audio_positions(grid, self.rescale), d),
                )
                rope = angle.map(lambda a: rotary(a).to(device))
                plan = self._blocks[0].interaction.plan(grid, device)
            self._plans[key] = (rope, plan)
        return self._plans[key]

    def _validate(self, x: AV[Any], grid: Grid, routes: Sequence[Route]) -> None:
        if x.video is None and x.audio is None:
            raise ValueError("both streams are absent; the network needs at least one")
        if grid.patch != self.patch:
            raise ValueError(f"grid.patch is {grid.patch}, the network's patch is {self.patch}; they must be equal")
        expected = AV(
            (self.channels_in.video, grid.t_v, grid.latent_height, grid.latent_width),
            (self.channels_in.audio, grid.t_a),
        )
        for name, latents, shape, ends in zip(AV._fields, x, expected, self.ends, strict=True):
            if latents is not None and ends is None:
                raise ValueError(f"{name} latents are given, but this network has no {name} stream")
            if latents is not None and tuple(latents.shape[1:]) != shape:
                raise ValueError(f"{name} latents have shape {tuple(latents.shape[1:])}; the grid asks for {shape}")
        for r in routes:
            if (x.audio is None and r.a2v) or (x.video is None and r.v2a):
                raise ValueError(f"{r} lets a stream see one that is absent; close that direction")
        batch = len(x.audio if x.video is None else x.video)
        if not routes or batch % len(routes):
            raise ValueError(f"a batch of {batch} does not divide into {len(routes)} routes")
