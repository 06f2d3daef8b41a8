"""Blocks that wait in the CPU's memory and are on the device two at a time, the next one copied while one works.

For sampling alone: weights go one way, from the CPU. Each block lies there in one piece, pinned where the device is a
GPU, and is copied in one go into one of two places on the device, by a stream of its own.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

ALIGNED = 256  # bytes: what a GPU's own allocations begin at


class Waiting:
    """A block's own tensors in one piece of the CPU's memory.

    Args:
        block: whose parameters and buffers move there.
        shared: tensors that other blocks have as well, which stay where they are.
        pinned: whether a GPU is to read from there.
    """

    def __init__(self, block: nn.Module, shared: set[int], *, pinned: bool) -> None:
        every = {id(x): x for x in (*block.parameters(), *block.buffers()) if id(x) not in shared}
        self.tensors = list(every.values())
        sizes = [-(-x.nbytes // ALIGNED) * ALIGNED for x in self.tensors]
        self.starts = [0, *accumulate(sizes)]
        self.bytes = torch.empty(self.starts[-1], dtype=torch.uint8, pin_memory=pinned)
        for x, own in zip(self.tensors, self.within(self.bytes), strict=True):
            own.copy_(x.detach())
        self.lie(self.bytes)

    def within(self, piece: Tensor) -> list[Tensor]:
        """The block's tensors where they lie in a copy of its bytes."""
        return [
            piece[start : start + x.nbytes].view(x.dtype).view(x.shape)
            for start, x in zip(self.starts, self.tensors, strict=False)
        ]

    def lie(self, piece: Tensor) -> None:
        """Its tensors are those of a copy of its bytes."""
        for x, own in zip(self.tensors, self.within(piece), strict=True):
            x.data = own


class Offload:
    """Fetches the blocks of a network, in their order and round again, as `each` asks for them.

    Args:
        blocks: of a network; their weights move to the CPU and must not change from then on.
        device: where they work.

    Attributes:
        held: which block's bytes lie in each of the two places.
        log: the last ("fetch", i), when block i is begun to be copied, and ("release", i), when its place may be taken.
    """

    def __init__(self, blocks: nn.ModuleList, device: torch.device) -> None:
        cuda = device.type == "cuda"
        every = [{id(x): x for x in (*block.parameters(), *block.buffers())} for block in blocks]
        counts = Counter(key for own in every for key in own)
        for x in {key: x for own in every for key, x in own.items() if counts[key] > 1}.values():
            x.data = x.data.to(device)
        shared = {key for key, count in counts.items() if count > 1}
        self.waiting = [Waiting(block, shared, pinned=cuda) for block in blocks]
        largest = max(len(one.bytes) for one in self.waiting)
        self.places = [torch.empty(largest, dtype=torch.uint8, device=device) for _ in range(2)]
        self.held: list[int | None] = [None, None]
        self.log: deque[tuple[str, int]] = deque(maxlen=1000)
        self.stream: Any = torch.cuda.Stream(device) if cuda else None
        self.copied: list[Any] = [torch.cuda.Event() if cuda else None for _ in range(2)]
        self.used: list[Any] = [torch.cuda.Event() if cuda else None for _ in range(2)]

    def each(self, blocks: nn.ModuleList) -> Iterator[Any]:
        """The blocks one by one, each on the device until the next one is asked for."""
        place = 0
        for i, block in enumerate(blocks):
            place = self.held.index(i) if i in self.held else self.fetch(i, place)
            if self.stream is not None:
                torch.cuda.current_stream().wait_event(self.copied[place])
            following = (i + 1) % len(blocks)  # after the last the first: another evaluation follows
            if following not in self.held:
                self.fetch(following, 1 - place)
            self.waiting[i].lie(self.places[place])
            try:
                yield block
            finally:
                self.waiting[i].lie(self.waiting[i].bytes)
                if self.stream is not None:
                    self.used[place].record()
                self.log.append(("release", i))
            place = 1 - place

    def fetch(self, i: int, place: int) -> int:
        """Begin to copy block i into a place that no block is at work in. Returns the place."""
        self.log.append(("fetch", i))
        bytes_of = self.waiting[i].bytes
        piece = self.places[place][: len(bytes_of)]
        if self.stream is None:
            piece.copy_(bytes_of)
        else:
            with torch.cuda.stream(self.stream):
                self.stream.wait_event(self.used[place])  # what was begun there may not be done yet
                piece.copy_(bytes_of, non_blocking=True)
                self.copied[place].record()
        self.held[place] = i
        return place
