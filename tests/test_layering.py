"""Imports go one way, as the design draws them: parsed from the source, so that no import has to run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"

VALUES = {"types", "grid", "rng", "arguments"}  # the vocabulary
LEAVES = VALUES | {"files", "plaintext"}  # and what reads and writes files
# Who may import whom, by the first part of the name below ccl; a part may always import itself.
ALLOWED: dict[str, set[str]] = {
    "arguments": set(),
    "types": {"arguments", "media"},  # Clip.save, when it is called
    "grid": {"arguments"},
    "rng": set(),
    "files": set(),
    "formats": set(),
    "plaintext": {"files"},
    "rows": LEAVES,
    "flow": set(),
    "tasks": VALUES,
    "nn": set(),
    "guidance": VALUES,
    "interaction": VALUES | {"nn"},
    "model": VALUES | {"files", "formats", "interaction", "nn", "pretrained"},
    "weights": {"files", "formats"},
    "fetch": {"files", "weights"},
    "pretrained": {"files", "formats", "weights"},
    "text": VALUES | {"pretrained"},
    "codecs": VALUES | {"files", "formats", "pretrained"},
    "image": VALUES | {"codecs", "model", "pretrained"},  # what a network is shown of a picture
    "media": VALUES | {"files"},
    "sampling": VALUES | {"flow", "guidance"},
    "optimizer": set(),
    "sharding": {"formats"},
    "data": LEAVES | {"media", "codecs", "text"},  # encoding needs a codec and a text encoder
    "evaluation": LEAVES | {"media", "rows", "weights"},  # knows nothing of what made the clips
    "sums": {"files"},
    "checkpoint": {"files", "sums"},
    "trust": {"files"},
    "yamltext": {"files"},
    "vocabulary": LEAVES | {"text"},
    "run": {"checkpoint", "files", "yamltext"},
}
# Where the parts meet.
MIDDLE: dict[str, set[str]] = {
    "module": VALUES
    | {"codecs", "flow", "image", "model", "optimizer", "sharded", "sharding", "source", "tasks", "text"}
    | {"checkpoint"},
    "sharded": {"checkpoint", "files"},
    "plan": VALUES | {"guidance", "model", "nn", "tasks"},
    "source": {"checkpoint", "files", "model", "sharded", "trust", "vocabulary", "yamltext"},
    "model_folder": VALUES
    | {"codecs", "files", "formats", "image", "model", "pretrained", "sampling", "sharding", "source", "text", "trust"},
    "pipeline": VALUES
    | {
        "codecs",
        "guidance",
        "image",
        "media",
        "model",
        "model_folder",
        "pretrained",
        "rows",
        "sampling",
        "tasks",
        "text",
        "vocabulary",
    },
    "generate": VALUES | {"__version__", "files", "guidance", "pipeline", "rows"},
    "callbacks": VALUES
    | {"checkpoint", "files", "guidance", "media", "pipeline", "sharding", "source", "sums", "tasks", "text"}
    | {"vocabulary"},
}

# Where everything meets. Nothing may import these.
TOP = {"__main__", "cli", "demo"}


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
    allowed = ALLOWED | MIDDLE
    wrong = [
        f"{file}, line {line}, imports {name}"
        for file, name, line in imports()
        if (own := part_of(file)) in allowed and (other := part_of(name)) != own and other not in allowed[own]
    ]
    assert wrong == []


def test_nothing_imports_the_command_line() -> None:
    wrong = [
        f"{file}, line {line}" for file, name, line in imports() if part_of(name) in TOP and part_of(file) not in TOP
    ]
    assert wrong == []


def test_every_part_has_its_place() -> None:
    parts = {
        path.stem for path in (SRC / "ccl").iterdir() if not path.name.startswith("_") and path.name != "checkpoints"
    }
    assert parts - set(ALLOWED) - TOP - set(MIDDLE) == set()


@pytest.mark.parametrize(
    "part", ["nn", "interaction", "guidance", "model", "flow", "tasks", "sampling", "types", "grid"]
)
def test_mathematics_knows_nothing_of_lightning_yaml_or_files(part: str) -> None:
    foreign = {"lightning", "yaml", "jsonargparse", "pathlib", "webdataset", "av"}
    root = SRC / "ccl" / part
    for file in [root.with_suffix(".py")] if root.with_suffix(".py").exists() else sorted(root.glob("*.py")):
        # reads and writes weights; writes a clip when asked
        if (part, file.stem) in {("model", "load"), ("model", "save"), ("model", "stored"), ("types", "types")}:
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
