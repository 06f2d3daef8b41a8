"""`ccl check`: parts, ours or the user's own, put through the contract of their kind (ccl.contracts)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from ccl.cli.errors import UsageError, is_file, is_yaml, read_yaml
from ccl.cli.named import part_named
from ccl.cli.own import reachable
from ccl.cli.parser import Parser, text_of
from ccl.cli.verbs import say


def main(argv: list[str]) -> int:
    parser = Parser(
        "check",
        "Put parts through the contract of their kind, a line for each clause; 1 where one is not kept. A part is what "
        "a YAML file names by class_path (a file of one part, a protocol, an overlay), or a class.",
        "ccl check configs/interaction/cca.yaml",
        "ccl check mine.yaml",
        "ccl check mine.Fusion 'mine.Fusion {rank: 4}'",
    )
    parser.add_argument("parts", nargs="+", type=text_of, metavar="PART", help="a YAML file, or a class")
    args = parser.parse(argv)
    trees = {text: part_named(text, "PART") for text in args.parts}
    files = [Path(text) for text in trees if is_yaml(text)]
    named = [(tree["class_path"], "PART") for text, tree in trees.items() if not is_yaml(text)]
    broken = 0
    with reachable(files, also=named):
        for text, tree in trees.items():
            found = list(parts_of(inlined(tree, Path(text))))
            if not found:
                from ccl.contracts import KINDS

                kinds = ", ".join(kind.name for kind in KINDS)
                raise UsageError(f"{text} names no part of a kind that has a contract: {kinds}")
            broken += sum(check(node, text) for node in found)
    return 1 if broken else 0


def inlined(tree: Any, file: Path) -> Any:
    """A tree with the part files that it names read in; loops were told before."""
    if isinstance(tree, dict):
        return {key: inlined(value, file) for key, value in tree.items()}
    if isinstance(tree, list):
        return [inlined(value, file) for value in tree]
    if is_yaml(tree) and is_file(part := file.parent / tree):
        return inlined(read_yaml(part), part)
    return tree


def class_of(node: dict[str, Any]) -> Any:
    """The class that a node names in full, which is there: `reachable` has looked."""
    path = node.get("class_path")
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    return getattr(import_module(module), name) if module else None


def parts_of(tree: Any) -> Iterator[dict[str, Any]]:
    """The nodes of a tree that name parts of a kind with a contract, those within a part after it."""
    from ccl.contracts import kind_of

    if isinstance(tree, dict):
        cls = class_of(tree)
        if isinstance(cls, type) and kind_of(cls) is not None:
            yield tree
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from parts_of(value)


def check(node: dict[str, Any], text: str) -> int:
    """Print what comes of each clause of a part; how many are not kept."""
    from ccl.cli.parts import build
    from ccl.contracts import kind_of, outcomes

    kind = kind_of(class_of(node))
    assert kind is not None
    subject = kind.subject(build(kind.made, node, text))
    say(f"{text}: {node['class_path']}, {kind.name}")
    untyped = [
        name
        for name, p in signature(class_of(node)).parameters.items()
        if p.annotation is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    clause = "says the type of each argument"
    say(f"  FAILED  {clause}: {untyped[0]} has none; no config is read without" if untyped else f"  ok      {clause}")
    broken, before = len(untyped[:1]), ""
    for came in outcomes(kind.clauses, subject):
        said = came.said if came.said != before else ""  # of what this machine lacks once is enough
        remark = f": {came.said}" if came.state == "FAILED" else f" ({said})" if said else ""
        before = came.said
        say(f"  {came.state:<7} {came.clause}{remark}")
        broken += came.state == "FAILED"
        sys.stdout.flush()
    return broken
