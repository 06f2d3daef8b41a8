"""Packets on one line of time, where a file's timestamps start anew or leap.

Streams joined end to end (adverts in a broadcast, chained ogg, a recorder that was restarted) begin their clocks again
with each part. One stream alone goes on where its part before ended. Where pictures and sound begin anew together, the
file does not say where the next part lies, for they seldom end together: that is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ccl.media.errors import MediaError

BACK = 0.5  # seconds: decoding times never go back by more, other than in a new part
LEAP = 10.0  # seconds ahead that are a new part and no gap, in broadcast streams; as ffmpeg has it


def continuous(packets: Iterable[Any], name: str, *, alone: bool, leaps: bool) -> Iterator[Any]:
    """The packets of a container, with timestamps that go on where the file's start anew.

    Args:
        packets: as they are demuxed, those that flush their decoders included.
        name: of the file.
        alone: whether they are of one stream.
        leaps: whether a leap ahead is a new part, too, and no gap.

    Raises:
        MediaError: the timestamps of several streams start anew.
    """
    offset = 0.0  # seconds
    first: dict[int, float] = {}  # decoding time of each stream: its first one, its newest, and where that one ends
    last: dict[int, float] = {}
    ends: dict[int, float] = {}
    for packet in packets:
        if packet.dts is not None:
            stream, time = packet.stream.index, float(packet.dts * packet.time_base)
            if stream in last and (time < last[stream] - BACK or (leaps and time > ends[stream] + LEAP)):
                if not alone:
                    after = ends[stream] - first[stream]
                    raise MediaError(name, f"its timestamps start anew after {after:.2f} s, as if joined end to end")
                offset += ends[stream] - time
            first.setdefault(stream, time)
            last[stream] = time
            ends[stream] = time + float((packet.duration or 0) * packet.time_base)
        if offset:
            ticks = round(offset / float(packet.time_base))
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        yield packet
