"""The dual-stream transformer (CCL Sec. 4): two Wan streams, and in each block their interaction.

b batch, c channels, t latent frames or audio tokens, l text states. Times run from 0 (clean) to 1 (noise).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from ccl import arguments
from ccl.grid import Grid
from ccl.interaction.align import Rescale, audio_positions, check_rescale, own_angles, video_positions
from ccl.interaction.base import Interaction, Site
from ccl.interaction.none import NoInteraction
from ccl.model.block import BlockCache, Common, DualBlock, Here, Rows, summed
from ccl.model.inputs import check_inputs
from ccl.model.offload import Offload
from ccl.model.prepared import Prepared, together
from ccl.model.recompute import Checkpointing, again
from ccl.model.recompute import check as check_checkpointing
from ccl.model.stream import WanStream
from ccl.model.voice import behind, clean, heard, parted, voice_of
from ccl.nn.attention import Backend
from ccl.nn.chunks import chosen, put
from ccl.nn.layers import initialise
from ccl.nn.rope import Rotary, rotary
from ccl.nn.split import Split
from ccl.types import ALONE, AV, STREAMS, Closed, View


class Output(NamedTuple):
    """What a forward gives.

    Args:
        velocity: of each stream in the shapes of x, float32; float64 where weights and latents are.
        losses: of the interactions, (b,) by name, summed over blocks; they belong into a training's loss.
    """

    velocity: AV[Any]
    losses: dict[str, Tensor]


class DualStreamTransformer(nn.Module):
    """Velocities of both streams.

    Args:
        video: the video stream; None builds none, as stage 1 trains the audio stream alone.
        audio: the audio stream; None builds none.
        layers: blocks, the same number in both where a stream does not say otherwise.
        head_dim: of a head, the same in both where a stream does not say otherwise.
        text_dim: width of the text states.
        interaction: makes the interaction of a block from where it stands; a stream alone has and needs none.
        freq_dim: numbers of the sinusoid of a time.
        patch: latent pixels a video token, each way.
        attention: which kernel; see `ccl.nn.attention`.
        checkpointing: recompute each block in the backward pass, to save memory; "attention" keeps attention's output,
            which takes more memory and, of long clips, much less time.
        rescale: of the audio positions in audio self-attention, so that both streams share one time axis; a number is
            the factor itself.

    Raises:
        ValueError: where a width does not divide into heads, or there are no layers, or no streams.

    Attributes:
        needs: what it must be given as `extras` wherever the stream or, in training, the interaction takes part.
    """

    def __init__(
        self,
        *,
        video: WanStream | None = None,
        audio: WanStream | None = None,
        layers: int,
        head_dim: int,
        text_dim: int,
        interaction: Callable[[Site], Interaction] | None = None,
        freq_dim: int = 256,
        patch: int = 2,
        attention: Backend = "auto",
        checkpointing: Checkpointing = False,
        rescale: Rescale | float = "index",
    ) -> None:
        super().__init__()
        if video is None and audio is None:
            raise ValueError("both streams are null; the network needs at least one")
        for name, size in {"head_dim": head_dim, "text_dim": text_dim, "freq_dim": freq_dim}.items():
            arguments.number(name, size, 1, arguments.WIDEST, whole=True)
        for name, size in {"layers": layers, "patch": patch}.items():
            arguments.number(name, size, 1, arguments.DEEPEST, whole=True)
        check_rescale(rescale)
        check_checkpointing(checkpointing)
        streams: AV[Any] = AV(video, audio)
        for name, stream in streams._asdict().items():
            if stream is None:
                continue
            arguments.instance(name, stream, WanStream, "a stream, as ccl.model.WanStream(width, ffn, channels)")
            if stream.width % (own := stream.head_dim or head_dim):
                raise ValueError(f"the {name} stream's width {stream.width} is not a multiple of head_dim {own}")
            if stream.layers is not None and stream.layers > layers:
                raise ValueError(f"the {name} stream has {stream.layers} layers, more than the network's {layers}")
        self.channels = streams.map(lambda stream: stream.channels)
        self.head_dim: AV[int] = AV(*((stream and stream.head_dim) or head_dim for stream in streams))
        self.text_dim, self.patch = text_dim, patch
        self.checkpointing, self.rescale, self.backend = checkpointing, rescale, attention
        self.video, self.audio = AV.zip(
            lambda stream, patch: stream.ends(patch=patch, text_dim=text_dim, freq_dim=freq_dim),
            streams,
            AV(patch, None),
        )
        alone = video is None or audio is None
        if interaction is None and not alone:
            raise ValueError("two streams need an `interaction`; ccl.interaction.NoInteraction keeps them apart")
        if interaction is not None and not callable(interaction):
            raise ValueError(f"interaction is {arguments.described(interaction)}; it must make one of a Site")
        width = streams.map(lambda stream: stream.width)
        self.blocks = nn.ModuleList()
        # One at a time: a config may claim more layers than there is memory, which is found out at the blocks.
        for i in range(layers):
            pair: AV[Any] = AV(*(s if s is not None and i < (s.layers or layers) else None for s in streams))
            site = Site(width.video or 0, width.audio or 0, self.head_dim, i, layers, attention, rescale)
            make = NoInteraction if interaction is None or None in pair else interaction
            blocks = AV.zip(lambda stream, wide: stream.block(wide, attention), pair, self.head_dim)
            self.blocks.append(DualBlock(*blocks, make(site)))
        self.trunk = self.interaction.trunk() if any(block.at for block in self._blocks) else None
        asked = (*streams, *(block.interaction for block in self._blocks if block.at))
        self.needs: tuple[str, ...] = tuple(dict.fromkeys(name for part in asked if part for name in part.needs))
        self.offload: Offload | None = None
        self.timed = False  # whether times on a GPU have been looked at
        self.group: ProcessGroup | None = None  # over which each clip's video tokens are split
        self._layouts: dict[tuple[Any, ...], Common] = {}

    @property
    def _blocks(self) -> list[DualBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _at_work(self) -> Iterable[Any]:
        """The blocks in their order, each where it works."""
        return self.blocks if self.offload is None else self.offload.each(self.blocks)

    def offload_blocks(self, device: torch.device) -> None:
        """Leave the blocks in the CPU's memory, from where two at a time come to the device, and the rest there; for
        sampling alone."""
        for name, part in self.named_children():
            if name != "blocks":
                part.to(device)
        if self.offload is None:
            self.offload = Offload(self.blocks, device)

    @property
    def interaction(self) -> Interaction:
        """One that is active, to be asked what holds of all of them; where none is, the first."""
        return next((block.interaction for block in self._blocks if block.at), self._blocks[0].interaction)

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
        text: Float[Tensor, "b l n"] | AV[Any] | Prepared | list[Any],
        *,
        grid: Grid,
        view: View | Sequence[View] | None = None,
        extras: dict[str, Any] | None = None,
    ) -> Output:
        """Velocities of the streams, and what the interactions ask a training to lower.

        Args:
            x: noisy latents: video (B, C, t_v, H/8, W/8), audio (B, C, t_a). A stream that takes no part is None here,
                in t and in the result; the other stream's route to it must be closed.
            t: times in [0, 1], (B,), or (B, T) where every latent frame has its own.
            text: states of the prompts (B, L, text_dim), zeros where padded, for both streams or, as AV, for each; or
                what `prepare` made of them. A list gives one to each of as many equal, consecutive chunks of the batch.
            grid: the clip's lengths, which x must have.
            view: who sees whom, and what is left out; a sequence gives one view to each of as many equal, consecutive
                chunks of the batch. None is open where both streams are there.
            extras: what the batch brings beside latents and text, by name (see `needs`): tensors (B, ...), or tuples;
                a "voice" (`ccl.model.Voice`) is heard by any network.

        Raises:
            ValueError: in words, where shapes, types, grid and views do not fit each other, or times are out of range.
                Times on a GPU are looked at once, in the first call: to look makes it wait.
        """
        if view is None:
            view = ALONE if isinstance(x, AV) and any(z is None for z in x) else View()
        views = (view,) if isinstance(view, View) else view
        text = together(text) if isinstance(text, list) else text
        extras = text.extras if isinstance(text, Prepared) else {} if extras is None else extras
        check_inputs(self, x, t, text, grid, views, extras)
        some = x.audio if x.video is None else x.video
        voice = voice_of(extras, x.audio, self.channels.audio)
        before = AV(0, 0 if voice is None else voice.latents.shape[2])
        common = self.layout(grid, some.device, before)
        times = AV.zip(lambda x, t, ends: ends.times(t), x, t, self.ends)
        tokens: AV[Any] = AV.zip(lambda x, ends: ends.tokens(x, extras), x, self.ends)
        if common.split is not None and tokens.video is not None:
            tokens = tokens._replace(video=common.split.own(tokens.video))
        e0 = times.map(lambda pair: pair[1])
        frames = t.map(lambda t: t[:, None] if t.ndim == 1 else t)
        rows = Rows(frames, None if self.trunk is None else self.trunk(frames), extras)
        if voice is not None:
            own = self.audio.times(frames.audio.new_zeros(len(some), 1))[1]
            e0 = e0._replace(audio=clean(e0.audio, own, before.audio, grid.t_a))
            tokens = behind(AV(None, self.audio.tokens(voice.latents, {})), tokens)
            rows = rows._replace(heard=AV(None, heard(voice, grid.t_a)))
        caches: Sequence[BlockCache]
        if isinstance(text, Prepared):
            caches = text.blocks
        else:
            caches = [BlockCache(self._embedded(text, x, extras), None)] * len(self.blocks)
        losses: dict[str, Tensor] = {}
        for i, block in enumerate(self._at_work()):  # a cache may be made here, and ends with its block
            tokens, more = self._through(block, i, tokens, e0, caches[i], common, views, rows)
            losses = summed(losses, more)
        _, clip = parted(tokens, before)
        velocity = AV.zip(
            lambda x, pair, ends, split: ends.out(x, pair[0], grid.h, grid.w, split),
            clip, times, self.ends, AV(common.split, None),
        )  # fmt: skip
        return Output(velocity, losses)

    def _through(
        self,
        block: nn.Module,
        layer: int,
        tokens: AV[Any],
        e0: AV[Any],
        cache: BlockCache,
        common: Common,
        views: Sequence[View],
        rows: Rows,
    ) -> tuple[AV[Any], dict[str, Tensor]]:
        """The tokens after a block, which some chunks may skip. It is told what it skips, not which one it is: blocks
        that do the same are compiled once."""
        kept = [i for i, view in enumerate(views) if not view.skips("block", layer)]
        if not kept:
            return tokens, {}
        x, e0, text, rows = chosen((tokens, e0, cache.text, rows), kept, len(views))
        here = [Here(views[i].route, views[i].detach, views[i].skips("self_attention", layer)) for i in kept]
        args = (x, e0, text, common, here, rows, cache.constants)
        if self.checkpointing and torch.is_grad_enabled():
            x, losses = again(block, self.checkpointing, *args)
        else:
            x, losses = block(*args)
        if len(kept) < len(views):
            x = AV.zip(lambda old, new: put(old, new, kept, len(views)), tokens, x)
            # A block that is skipped has nothing to lower.
            losses = {
                name: put(loss.new_zeros(len(loss) // len(kept) * len(views)), loss, kept, len(views))
                for name, loss in losses.items()
            }
        return x, losses

    @torch.no_grad()
    def prepare(self, text: Float[Tensor, "b l n"] | AV[Any], *, extras: dict[str, Any] | None = None) -> Prepared:
        """Keys and values of text and of context tokens, for every block: computed once a sampling run.

        Args:
            text: states of the prompts, for both streams or for each.
            extras: as of `forward`, with as many rows.

        Raises:
            ValueError: text is not states (B, L, text_dim); a stream lacks what it needs.
        """
        for name, ends in zip(STREAMS, self.ends, strict=True):
            if not isinstance(text, AV):
                arguments.tensor("text", text, "B", "L", self.text_dim)
            elif ends is not None:
                arguments.tensor(f"text.{name}", getattr(text, name), "B", "L", self.text_dim)
        states = self._embedded(text, self.ends, extras or {})
        return Prepared(tuple(block.prepare(states) for block in self._at_work()), extras or {})

    def _embedded(self, text: Any, present: AV[Any], extras: dict[str, Any]) -> AV[Any]:
        """Text in the width of each stream that is present."""
        each = text if isinstance(text, AV) else AV(text, text)
        return AV.zip(lambda _, ends, states: ends.text(states, extras), present, self.ends, each)

    def check(self, grid: Grid) -> dict[str, float]:
        """Figures of how the interaction's windows suit the grid (drift, coverage); warns where they do not."""
        return self.interaction.check(grid)

    @property
    def closed(self) -> Closed:
        """What a closed route of the interactions leaves."""
        return self.interaction.closed

    def init_weights(self) -> None:
        """Re-initialise every parameter in place from torch's global generator.

        After `to_empty` on a model built on the meta device this gives the weights that building it directly under the
        same seed would have given.
        """
        initialise(self)

    def split_over(self, group: ProcessGroup | None) -> None:
        """Split each clip's video tokens over processes, all of which are given the same clips (`ccl.nn.split`).

        The sound, which is short, is with each of them whole. What a forward returns is whole on all, and the mean of
        their gradients is that of one process.

        Args:
            group: those processes; None gives each of them its own clips again.

        Raises:
            ValueError: there is no video stream, or its heads do not divide among them.
        """
        if group is not None:
            video = self._blocks[0].video
            if video is None:
                raise ValueError("this network has no video stream, whose tokens processes could share")
            count = video.modulation.shape[-1] // self.head_dim.video
            if count % group.size():
                sharing = f"the {group.size()} processes that share a clip"
                raise ValueError(f"the video stream's {count} heads do not divide among {sharing}")
        self.group = group
        self._layouts.clear()

    def cross_modal_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the interactions (lr 1e-4 in stage 2)."""
        if self.trunk is not None:
            yield from self.trunk.parameters()
        for block in self._blocks:
            yield from block.interaction.parameters()

    def stream_parameters(self) -> Iterator[nn.Parameter]:
        """All others (lr 1e-5 in stage 2)."""
        for pair in (self.ends, *(block.streams for block in self._blocks)):
            for part in pair:
                if part is not None:
                    yield from part.parameters()

    def layout(self, grid: Grid, device: torch.device, before: AV[int] = AV(0, 0)) -> Common:
        """Rotary tables and the interaction's layout, remembered by grid and by what stands before the audio.

        Raises:
            ValueError: clips are split over processes, among which a frame's tokens do not divide, or whose interaction
                cannot be.
        """
        key = (grid, device, self.dtype, before)
        if key not in self._layouts:
            if len(self._layouts) >= 8:
                self._layouts.clear()
            with torch.inference_mode(False), torch.no_grad():
                positions = AV(video_positions(grid), audio_positions(grid, self.rescale, before=before.audio))
                angle = own_angles(positions, grid, self.head_dim)
                rope: AV[Rotary] = angle.map(lambda a: rotary(a, self.dtype).to(device))
                common = Common(rope, self.interaction.layout(grid, device), before)
                self._layouts[key] = common if self.group is None else self._split(common, grid, self.group)
        return self._layouts[key]

    def _split(self, common: Common, grid: Grid, group: ProcessGroup) -> Common:
        """What blocks are given of a clip whose video tokens are split."""
        if grid.h * grid.w % group.size():
            raise ValueError(
                f"a latent frame's {grid.h} x {grid.w} tokens do not divide among the {group.size()} processes that "
                "share a clip"
            )
        by = Split(group, group.rank(), group.size(), grid.t_v)
        rope = common.rope._replace(video=by.own(common.rope.video, 0))
        return common._replace(rope=rope, layout=self.interaction.split(common.layout, by), split=by)
