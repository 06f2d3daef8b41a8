"""Test sets by name: the benchmark's own (paper, world), a JSONL file of rows, a folder of such files, or of shards.

A model that was trained on its user's own shards is scored on those it was validated with, unless another test set is
named: what the talking world or the paper asks for is nothing that it has learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import ccl
from ccl.cli.errors import UsageError
from ccl.files import reading, sha256
from ccl.files.shipped import shipped
from ccl.rows import Row, file_names, read_rows, same_name
from ccl.spelling import counted, did_you_mean

WORLD, PAPER = "world", "paper"
MOST = 200  # clips of shards that are scored unless --limit says how many; as many as the paper's test set has


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

    @property
    def sentence(self) -> str:
        """What is taken, for whoever did not choose it."""
        return f"test set: {self.name}; --testset takes another"

    def prepare(self) -> None:
        """Write what the rows name and is not there yet."""

    def rows(self, *, give: tuple[str, ...] = ()) -> list[Row]:
        """All rows, giving these of their media; ValueError names the file and line at fault.

        Where none are given the rows are to be scored, and keep their voices to be compared with.
        """
        keep = () if give else ("voice",)
        rows = [row for file in self.files for row in read_rows(file, give=give, keep=keep)]
        seen: set[str] = set()
        for row in rows:
            if same_name(row.id) in seen:
                raise ValueError(f"the id '{row.id}' occurs in two files of the test set {self.name}")
            seen.add(same_name(row.id))
        return rows


@dataclass(frozen=True)
class ShardSet(TestSet):
    """The clips of a folder of shards by their captions, the clips themselves the rows' references.

    Args:
        folder: of shards or of buckets.
        home: folder that the clips are written to, where the shards hold clips.
        limit: the first of them alone.
        whose: words for where they come from.
    """

    folder: Path = Path()
    home: Path = Path()
    limit: int = MOST
    whose: str = ""

    @property
    def said(self) -> str:
        return f"shards of {self.folder.name}, sha256 {sha256(next(self._lists))[:16]}"

    @property
    def sentence(self) -> str:
        every = len(self._clips)
        first = f"the first {len(self._told)} of " if len(self._told) < every else ""
        true = f"; --reference {self.home} compares with the true ones" * any(c.crc32 is not None for c in self._told)
        return (
            f"test set: {first}{counted(every, 'clip')} of {self.folder}, {self.whose}; --testset takes another{true}"
        )

    def rows(self, *, give: tuple[str, ...] = ()) -> list[Row]:
        rows = [
            Row(clip.id, clip.prompt, reference=None if clip.crc32 is None else str(file))
            for clip, file in self._told.items()
        ]
        return [row.giving(*give) for row in rows]

    def prepare(self) -> None:
        from ccl.data.captions import write_clips

        write_clips({clip: file for clip, file in self._told.items() if clip.crc32 is not None})

    @property
    def _lists(self) -> Any:
        from ccl.data.archive import BUCKETS, INDEX

        return (self.folder / name for name in (INDEX, BUCKETS) if (self.folder / name).is_file())

    @cached_property
    def _clips(self) -> list[Any]:
        from ccl.data.captions import captioned

        return list(captioned(self.folder))

    @cached_property
    def _told(self) -> dict[Any, Path]:
        """The clips that have a caption, and the files that they are written to."""
        clips = [clip for clip in self._clips if clip.prompt.strip()][: self.limit]
        if not clips:
            raise ValueError(f"no clip of {self.folder} has a caption, so there is nothing to make clips from")
        names = file_names([Row(clip.id) for clip in clips])
        return dict(zip(clips, (self.home / f"{name}.mp4" for name in names), strict=True))


def is_embedded(config: dict[str, Any]) -> bool:
    """Whether a run or a model folder has the embedded codec of pictures."""
    node: Any = config.get("codec")
    node = node.get("init_args", node) if isinstance(node, dict) else None  # of a model folder, else of a run
    for key in ("video", "class_path"):
        node = node.get(key) if isinstance(node, dict) else None
    return isinstance(node, str) and node.endswith(".EmbeddedVideo")


def own_shards(config: dict[str, Any], *, trained_on: bool) -> tuple[Path, str] | None:
    """The shards that a run is to be scored on, and in words which they are; None where it has none of its own.

    Args:
        config: of the run.
        trained_on: whether those that it was trained on will do where none were held out.

    Raises:
        UsageError: it has some, and they are not here.
    """
    data = config.get("data")
    given = data.get("init_args") if isinstance(data, dict) else None
    if not isinstance(given, dict) or not isinstance(given.get("shards"), str):
        return None
    folder, whose = given.get("val_shards"), "which the run was validated on"
    if not isinstance(folder, str):
        if not trained_on:
            return None
        folder, whose = given["shards"], "which the run was trained on, for it has no val_shards that were held out"
    if not Path(folder).is_dir():
        raise UsageError(f"{folder}, {whose}, is not here; name a test set with --testset")
    return Path(folder), whose


def testset_of(name: str) -> TestSet:
    """The test set of that name, file or folder.

    Raises:
        UsageError: there is none such.
    """
    path = Path(name)
    if path.is_file():
        return TestSet(path.stem, (path,))
    ours = benchmark() / "testset" / name
    for folder in (path, ours):
        files = tuple(sorted(folder.glob("*.jsonl"))) if folder.is_dir() else ()
        if files:
            return TestSet(name if folder == ours else folder.name, files)
    known = [own for own in (PAPER, WORLD) if (benchmark() / "testset" / own).is_dir()]
    raise UsageError(
        f"there is no test set '{name}'{did_you_mean(name, known)}; give a .jsonl file or one of: {', '.join(known)}"
    )


def about(testset: str, device: str) -> dict[str, str]:
    """What tables say of the scoring itself: the test set with its hash, version, device, date."""
    import torch

    name = f" ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else ""
    today = date.today().isoformat()
    return {"test set": testset, "ccl": ccl.__version__, "device": f"{device}{name}", "date": today}


def published(*tables: str) -> dict:
    """The paper's numbers: method -> column -> subset -> value.

    Args:
        tables: of evaluation/paper.yaml, table_1 without any.

    Raises:
        FileError: the file holds none.
    """
    path = benchmark() / "paper.yaml"
    with reading(path, "the paper's numbers"):
        paper = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {
            str(method): {str(name): {str(s): float(v) for s, v in by.items()} for name, by in columns.items()}
            for table in tables or ("table_1",)
            for method, columns in paper[table].items()
        }


def benchmark() -> Path:
    """The folder of the benchmark's data."""
    return shipped("benchmark", "evaluation")
