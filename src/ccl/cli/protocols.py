"""Whose conventions `ccl evaluate --protocol` measures by: those of suites, which ship, or of a YAML of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccl.cli.errors import UsageError, is_file, read_yaml
from ccl.cli.testsets import PAPER, benchmark
from ccl.spelling import did_you_mean


@dataclass(frozen=True)
class Protocol:
    """Conventions by a name.

    Args:
        name: in tables, and of their folder where several are measured by.
        file: that states them; None is every metric's own, which evaluation/protocol.yaml spells.
    """

    name: str
    file: Path | None = None

    @property
    def tree(self) -> dict[Any, Any]:
        """What the file says of each metric that it states; empty of the metrics' own."""
        return read_yaml(self.file) if self.file else {}

    def lacks(self, metrics: Sequence[str]) -> dict[str, str]:
        """Of these metrics, what the suite has and we have not: what stands in its place, by metric."""
        nodes = {name: node for name, node in self.tree.items() if isinstance(node, dict)}
        return {name: str(nodes[name]["lacks"]) for name in metrics if nodes.get(name, {}).get("lacks")}


def shipped() -> dict[str, Path | None]:
    """The files of the suites by name, the paper's first."""
    files = sorted((benchmark() / "protocols").glob("*.yaml"))
    return {PAPER: None} | {file.stem: file for file in files}


def protocols_of(given: Sequence[str]) -> list[Protocol]:
    """The protocols of a command line; none where none is given.

    Raises:
        UsageError: there is none of that name, nor such a file; two have one name.
    """
    known, found = shipped(), dict[str, Protocol]()
    for text in given:
        if text not in known and not is_file(Path(text)):
            if Path(text).suffix in (".yaml", ".yml"):
                raise UsageError(f"there is no protocol file {text}")
            names = ", ".join(known)
            raise UsageError(
                f"there is no protocol '{text}'{did_you_mean(text, known)}; there are {names}, or a YAML file"
            )
        protocol = Protocol(text, known[text]) if text in known else Protocol(Path(text).stem, Path(text))
        if protocol.name in found:
            raise UsageError(f"two protocols are called '{protocol.name}'; a table could not tell them apart")
        found[protocol.name] = protocol
    return list(found.values())
