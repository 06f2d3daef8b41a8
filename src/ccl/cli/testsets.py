"""Test sets by name: the benchmark's own (paper, world), a JSONL file of rows, or a folder of such files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

import ccl
from ccl.cli.errors import UsageError, did_you_mean
from ccl.files import sha256
from ccl.rows import Row, read_rows

WORLD, PAPER = "world", "paper"


@dataclass(frozen=True)
class TestSet:
    """Rows in one or several files.

    Args:
        name: "paper", "world", or that of the file or folder.
        files: JSONL, in order.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def said(self) -> str:
        """Its name, and the hashes of its files."""
        return f"{self.name}, {', '.join(f'{file.name} sha256 {sha256(file)[:16]}' for file in self.files)}"

    def rows(self, *, give: tuple[str, ...] = ()) -> list[Row]:
        """All rows, giving these of their media; ValueError names the file and line at fault."""
        rows = [row for file in self.files for row in read_rows(file, give=give)]
        seen: set[str] = set()
        for row in rows:
            if row.id in seen:
                raise ValueError(f"the id '{row.id}' occurs in two files of the test set {self.name}")
            seen.add(row.id)
        return rows


def testset_of(name: str) -> TestSet:
    """The test set of that name, file or folder.

    Raises:
        UsageError: there is none such.
    """
    path = Path(name)
    if path.is_file():
        return TestSet(path.stem, (path,))
    shipped = benchmark() / "testset" / name
    for folder in (path, shipped):
        files = tuple(sorted(folder.glob("*.jsonl"))) if folder.is_dir() else ()
        if files:
            return TestSet(name if folder == shipped else folder.name, files)
    known = [own for own in (PAPER, WORLD) if (benchmark() / "testset" / own).is_dir()]
    raise UsageError(
        f"there is no test set '{name}'{did_you_mean(name, known)}; give a .jsonl file or one of: {', '.join(known)}"
    )


def published() -> dict:
    """The paper's numbers: method -> column -> subset -> value (Table 1)."""
    return yaml.safe_load((benchmark() / "paper.yaml").read_text())["table_1"]


def benchmark() -> Path:
    """The folder of the benchmark's data: inside an installed package, or beside the source."""
    package = Path(ccl.__file__).parent
    inside, beside = package / "benchmark", package.parent.parent / "evaluation"
    return inside if inside.is_dir() else beside
