"""The one folder of a server's files, uploads and clips, which never grows beyond a bound for long."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from ccl.files import sweep

SERVED = ".served"  # in a folder that servers made: nothing of anybody else's is ever removed
GRACE = 120.0  # seconds for which a file that has just come stays, whatever the bound: it may be about to be read


@dataclass(frozen=True)
class Folder:
    """Files of a server.

    Args:
        root: the folder.
        most: bytes that may lie in it; the oldest files go first.
        age: seconds after which a file goes in any case.
    """

    root: Path
    most: int = 2 * 10**9
    age: float = 24 * 3600.0

    @property
    def uploads(self) -> Path:
        """Where what was sent lies."""
        return self.root / "uploads"

    @property
    def clips(self) -> Path:
        """Where what was made lies."""
        return self.root / "clips"

    def make(self) -> None:
        """The folder and those in it, for this user's eyes, without what a kill left half-made.

        Raises:
            ValueError: those in it hold files of somebody else's, which would be removed with age.
        """
        for path in (self.uploads, self.clips):
            if not (self.root / SERVED).is_file() and any(one.is_file() for one in path.rglob("*")):
                raise ValueError(f"{path} holds files that are no server's, which removes what is old; name another")
        for path in (self.root, self.uploads, self.clips):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / SERVED).touch()
        sweep(self.clips)
        whole = {path.stem for path in self.clips.glob("*.json")}
        for path in self.clips.glob("clip-*"):
            if path.stem not in whole:  # its record comes last
                path.unlink(missing_ok=True)
        for path in self.uploads.glob("tmp*"):  # what is whole has a folder of its own
            if path.is_file():
                path.unlink(missing_ok=True)
        self.clean()

    def new(self, suffix: str) -> Path:
        """A path for a clip, whose name nobody guesses."""
        return self.clips / f"clip-{secrets.token_hex(8)}{suffix}"

    def clean(self, now: float | None = None) -> list[Path]:
        """Remove what is too old, then the oldest until the rest is within the bound; empty folders of uploads go too.

        Args:
            now: seconds since the epoch; None is the clock's.

        Returns:
            The files that went.
        """
        now = time.time() if now is None else now
        files = []
        for parent in (self.uploads, self.clips):
            for path in parent.rglob("*"):
                try:
                    found = path.lstat()
                except FileNotFoundError:  # of a file that another hand took away meanwhile
                    continue
                if not path.is_dir() or path.is_symlink():
                    files.append((found.st_mtime, found.st_size, path))
        files.sort()
        total, gone = sum(size for _, size, _ in files), []
        for when, size, path in files:
            if now - when > self.age or (total > self.most and now - when > GRACE):
                path.unlink(missing_ok=True)
                gone.append(path)
                total -= size
        for path in {path.parent for path in gone} - {self.uploads, self.clips}:
            if not any(path.iterdir()):
                path.rmdir()
        return gone
