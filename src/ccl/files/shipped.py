"""Where data lies that ships with the package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def shipped(inside: str, source: str | None = None) -> Path:
    """A folder of data: inside an installed package, or beside the source.

    Args:
        inside: its name in the package.
        source: its name in the repository, where it has another one.
    """
    installed = PACKAGE / inside
    return installed if installed.is_dir() else PACKAGE.parent.parent / (source or inside)


def ships(path: Path, folder: str) -> bool:
    """Whether a path that is not here names a file of a folder that ships."""
    return (
        path.parts[:1] == (folder,) and ".." not in path.parts and shipped(folder).joinpath(*path.parts[1:]).is_file()
    )
