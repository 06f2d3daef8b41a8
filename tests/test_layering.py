"""Imports go one way, as the design draws them: parsed from the source, so that no import has to run."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"

VALUES = {"types", "grid", "rng", "arguments", "spelling"}  # the vocabulary, and what is said of what it cannot take
LEAVES = VALUES | {"files"}  # and what reads and writes files
# Who may import whom, by the first part of the name below ccl; a part may always import itself. What stands above may
# import what stands below, and nothing the other way.
ALLOWED: dict[str, set[str]] = {
    "arguments": set(),
    "files": set(),
    "flow": {"arguments"},
    "grid": {"arguments"},
    "nn": set(),
    "progress": set(),
    "rng": set(),
    "spelling": set(),
    "types": {"arguments"},
    "guidance": VALUES | {"flow", "nn"},  # passes are chunks of a batch; what is clean is a matter of time
    "interaction": VALUES | {"nn"},
    "media": LEAVES,
    "rows": LEAVES,
    "tasks": VALUES,
    "weights": {"files", "spelling"},
    "sampling": VALUES | {"flow", "guidance"},
    "text": LEAVES | {"weights"},
    "codecs": LEAVES | {"media", "weights"},
    "model": LEAVES | {"interaction", "nn", "weights"},
    "image": VALUES | {"codecs", "model", "weights"},  # what a network is shown of a picture
    "data": LEAVES | {"media", "codecs", "progress", "text"},  # encoding needs a codec and a text encoder
    "evaluation": LEAVES | {"media", "rows", "weights"},  # knows nothing of what made the clips
    "study": LEAVES | {"evaluation", "media", "rows"},  # as little
    # Where the parts meet.
    "planning": VALUES | {"guidance", "model", "nn", "tasks"},
    "storage": LEAVES | {"codecs", "image", "model", "sampling", "tasks", "text", "weights"},
    "training": LEAVES | {"codecs", "flow", "image", "model", "nn", "storage", "tasks", "text", "weights"},
    "generation": LEAVES
    | {"__version__", "codecs", "guidance", "image", "media", "model", "rows", "sampling", "storage", "tasks", "text"}
    | {"weights"},
    "diffusers": VALUES | {"generation", "guidance", "media", "rows", "sampling", "storage", "weights"},
    "contracts": LEAVES
    | {"codecs", "evaluation", "guidance", "interaction", "media", "model", "nn", "planning", "rows"}
    | {"text", "weights"},  # what each kind of part promises
    "inspection": LEAVES
    | {"codecs", "data", "evaluation", "flow", "generation", "guidance", "interaction", "media", "model", "nn"}
    | {"tasks", "text"},  # looks into what the others have made
    "callbacks": LEAVES
    | {"generation", "inspection", "guidance", "media", "sampling", "storage", "tasks", "text", "training"},
}
# Where everything meets. Nothing may import these.
TOP = {"__main__", "ablation", "bench", "cli", "demo", "publish", "serve"}


def part_of(module: str) -> str:
    """The part of ccl that a module belongs to: `interaction` of ccl.interaction.cca."""
    return module.split(".")[1] if "." in module else ""


def imports() -> list[tuple[str, str, int]]:
    """(file, module of ccl that it imports, line) for every import in the source."""
    found = []
    for file in sorted((SRC / "ccl").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}, line {node.lineno}: imports are absolute"
                whole = node.module == "ccl"
                names = [f"ccl.{alias.name}" for alias in node.names] if whole else [node.module or ""]
            for name in names:
                if name.split(".")[0] == "ccl":
                    found.append(
                        (file.relative_to(SRC).with_suffix("").as_posix().replace("/", "."), name, node.lineno)
                    )
    return found


def test_parts_import_only_what_lies_below_them() -> None:
    wrong = [
        f"{file}, line {line}, imports {name}"
        for file, name, line in imports()
        if (own := part_of(file)) in ALLOWED and (other := part_of(name)) != own and other not in ALLOWED[own]
    ]
    assert wrong == []


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest, which knows them by it, would not run the second."""
    names = [file.name for file in Path(__file__).parent.rglob("test_*.py")]
    assert {name for name in names if names.count(name) > 1} == set()


def test_nothing_imports_the_command_line() -> None:
    wrong = [
        f"{file}, line {line}" for file, name, line in imports() if part_of(name) in TOP and part_of(file) not in TOP
    ]
    assert wrong == []


def test_every_part_has_its_place() -> None:
    paths = [path for path in (SRC / "ccl").iterdir() if not path.name.startswith("_")]
    parts = {path.stem for path in paths if path.name not in ("checkpoints", "py.typed")}
    assert parts - set(ALLOWED) - TOP == set()


def test_no_arrow_runs_back() -> None:
    assert set(TopologicalSorter(ALLOWED).static_order()) >= set(ALLOWED)  # a CycleError names the circle


@pytest.mark.parametrize(
    "part", ["nn", "interaction", "guidance", "model", "flow", "tasks", "sampling", "types", "grid"]
)
def test_mathematics_knows_nothing_of_lightning_yaml_or_files(part: str) -> None:
    foreign = {"lightning", "yaml", "jsonargparse", "pathlib", "webdataset", "av"}
    root = SRC / "ccl" / part
    for file in [root.with_suffix(".py")] if root.with_suffix(".py").exists() else sorted(root.glob("*.py")):
        # reads and writes weights
        if part == "model" and file.stem in {"load", "read_lora", "save", "save_lora", "stored"}:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not foreign & {name.split(".")[0] for name in names}, f"{file.name}, line {node.lineno}"


def test_only_media_touches_containers() -> None:
    for file in sorted((SRC / "ccl").rglob("*.py")):
        tree = ast.walk(ast.parse(file.read_text()))
        names = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"av", "soundfile"} or file.parent.name == "media", file.name
