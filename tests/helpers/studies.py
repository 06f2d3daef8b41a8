"""The smallest study: systems with a clip each of some rows, which say who they are wherever a file can."""

from __future__ import annotations

from pathlib import Path

import av

from ccl.grid import Grid
from ccl.media import write_clip
from helpers.tiny_clips import tiny_clip

SHORT = Grid(frames=9, fps=25.0, height=48, width=64)


def system(folder: Path, number: int, rows: int = 4) -> Path:
    """Clips `row0.mp4` and so on, in whose tags the folder's name stands."""
    folder.mkdir(parents=True)
    for row in range(rows):
        path = folder / f"row{row}.mp4"
        write_clip(tiny_clip(10 * number + row, SHORT), folder / "plain.mp4")
        with av.open(str(folder / "plain.mp4")) as plain, av.open(str(path), "w") as tagged:
            tagged.metadata.update(title=folder.name, comment=f"made by {folder.name}")
            streams = {stream.index: tagged.add_stream_from_template(stream) for stream in plain.streams}
            for packet in plain.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    tagged.mux(packet)
        (folder / "plain.mp4").unlink()
    return folder


def named_in(folder: Path, *names: str) -> list[str]:
    """The files of a folder in which one of these names stands, in their own name or in their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    wanted = [name.lower().encode() for name in names]
    return [
        str(path)
        for path in files
        if any(n in str(path.relative_to(folder)).lower().encode() + path.read_bytes().lower() for n in wanted)
    ]
