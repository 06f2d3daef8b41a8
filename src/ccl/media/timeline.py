"""Packets on one line of time, where a file's timestamps start anew or leap.

Streams joined end to end (adverts in a broadcast, chained ogg, a recorder that was restarted) begin their clocks again
with each part. One stream alone goes on where its part before ended. Where pictures and sound begin anew together, the
file does not say where the next part lies, for they seldom end together: that is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ccl.media.errors import MediaError

BACK = 0.5  # seconds: decoding times never go back by more, other than in a new part
LEAP = 10.0  # seconds ahead that are a new part and no gap, in broadcast streams; as ffmpeg has it


class _Clock:
    """Of one stream, in ticks: decoding times of its first packet and its newest, where that one ends."""

    def __init__(self, stream: Any, leaps: bool) -> None:
        self.unit = float(stream.time_base)
        self.back = BACK / self.unit
        self.leap = LEAP / self.unit if leaps else float("inf")
        self.first: int | None = None
        self.last = self.ends = self.offset = 0


def continuous(packets: Iterable[Any], streams: Sequence[Any], name: str, *, leaps: bool) -> Iterator[Any]:
    """The packets of a container, with timestamps that go on where the file's start anew.

    Args:
        packets: as they are demuxed, those that flush their decoders included.
        streams: that they are of.
        name: of the file.
        leaps: whether a leap ahead is a new part, too, and no gap.

    Raises:
        MediaError: the timestamps of several streams start anew.
    """
    clocks = {stream.index: _Clock(stream, leaps) for stream in streams}
    for packet in packets:
        clock, time = clocks[packet.stream.index], packet.dts
        if time is not None:
            if clock.first is None:
                clock.first = time
            elif time < clock.last - clock.back or time > clock.ends + clock.leap:
                if len(streams) > 1:
                    after = (clock.ends - clock.first) * clock.unit
                    raise MediaError(name, f"its timestamps start anew after {after:.2f} s, as if joined end to end")
                clock.offset += clock.ends - time
            clock.last, clock.ends = time, time + (packet.duration or 0)
        if clock.offset:
            packet.pts = None if packet.pts is None else packet.pts + clock.offset
            packet.dts = None if packet.dts is None else packet.dts + clock.offset
        yield packet
