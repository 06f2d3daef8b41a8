"""A matrix from its YAML and from overlays; whatever is wrong is one sentence with file and line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ccl import arguments
from ccl.ablation import claims
from ccl.ablation.matrix import ROWS, RUNS, Matrix, Row, Run, Sampling, Testing
from ccl.cli.errors import UsageError, compose, is_yaml, read_yaml
from ccl.spelling import did_you_mean

OVERLAY = ("about", "config", "parts", "sampling", "scores", "seeds", "test", "train")  # keys of an overlay of a matrix
NAME = re.compile(r"[\w+][\w.+=-]{0,80}")
Where = tuple[str, ...]  # a key, from the top


def read(file: Path, over: Sequence[Path] = ()) -> Matrix:
    """A matrix from its YAML.

    Args:
        file: of the matrix.
        over: overlays in order: YAML of `ccl fit`; or, with a key `config` of its own, an overlay of a matrix, which
            may say what else is another at another size: `parts`, that is other part files for those of the matrix,
            `test`, `scores`, `sampling`, `train`, `seeds`. Its own name is put behind the matrix's, so that each size
            has a folder of its own.

    Raises:
        UsageError: one sentence with file and line.
    """
    source = _Source(file)
    tree, stacked, parts = dict(source.tree), list[Path | dict[str, Any]](), dict[str, str]()
    for one in over:
        above = _Source(one)
        if "config" not in above.tree:
            stacked.append(one)
            continue
        above.keys((), above.tree, OVERLAY)
        stacked += above.files("config", empty=True)
        tree["name"] = f"{tree.get('name')}-{one.stem}"
        parts |= above.tree.get("parts") or {}
        if keys := above.keys_of_fit(("train",), above.tree.get("train")):
            stacked.append(keys)
        for key in OVERLAY:
            if key in ("config", "parts", "train") or key not in above.tree:
                continue
            merge = key == "sampling" and isinstance(tree.get(key), dict)
            tree[key] = {**tree[key], **above.tree[key]} if merge else above.tree[key]
    tree = _replaced(tree, parts)
    return source.matrix(tree, tuple(stacked))


class _Source:
    """A YAML file and the lines of its keys."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[Where, int] = {}
        for path, line in _lines(compose(file)):
            if path in self.lines:
                raise UsageError(f"{file}, line {line}: the key '{path[-1]}' stands there twice")
            self.lines[path] = line
        self.tree = self._anchored(read_yaml(file), ())

    def fail(self, path: Where, said: str) -> NoReturn:
        """UsageError with the line of a key, or of the nearest above it."""
        while path and path not in self.lines:
            path = path[:-1]
        raise UsageError(f"{self.file}{f', line {self.lines[path]}' if path else ''}: {said}")

    def keys(self, path: Where, node: Any, known: Sequence[str], needed: Sequence[str] = ()) -> dict[str, Any]:
        """A mapping of these keys alone."""
        if not isinstance(node, dict):
            self.fail(path, f"'{'.'.join(path)}' is {arguments.described(node)}; it must have keys: {', '.join(known)}")
        for key in node:
            if key not in known:
                near = did_you_mean(str(key), known) or f"; there are: {', '.join(known)}"
                self.fail((*path, str(key)), f"there is no key '{'.'.join((*path, str(key)))}'{near}")
        for key in needed:
            if node.get(key) is None:
                self.fail(path, f"'{'.'.join((*path, key))}' is missing")
        return node

    def files(self, key: str, tree: Mapping[str, Any] | None = None, *, empty: bool = False) -> list[Path]:
        """YAML files that a key lists."""
        given = (self.tree if tree is None else tree)[key]
        if not isinstance(given, list) or not (given or empty) or not all(map(is_yaml, given)):
            self.fail((key,), f"'{key}' must be a list of YAML files of `ccl fit`, such as [../joint.yaml]")
        return [Path(one) for one in given]

    def _anchored(self, node: Any, path: Where) -> Any:
        """A tree whose YAML files are named from here, not from the file; told where there is none."""
        if isinstance(node, dict):
            # Of `parts` the keys are files too.
            return {
                self._anchored(key, (*path, str(key))) if path == ("parts",) else key: self._anchored(
                    value, (*path, str(key))
                )
                for key, value in node.items()
            }
        if isinstance(node, list):
            return [self._anchored(value, (*path, str(index))) for index, value in enumerate(node)]
        if not is_yaml(node):
            return node
        part = Path(os.path.normpath(self.file.parent / node))
        if not part.is_file():
            beside = [one.name for one in part.parent.glob("*.y*ml")] if part.parent.is_dir() else []
            self.fail(path, f"there is no file {part}{did_you_mean(part.name, beside)}")
        return str(part)

    def matrix(self, tree: dict[str, Any], over: tuple[Path | dict[str, Any], ...]) -> Matrix:
        known = [field.name for field in fields(Matrix) if field.name != "over"]
        needed = ("name", "about", "seeds", "config", "runs")
        self.keys((), tree, [*known, "sampling"], needed)
        name = self._name(("name",), tree["name"])
        seeds = tree["seeds"]
        whole = isinstance(seeds, list) and all(
            isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds
        )
        if not whole or not seeds or len(set(seeds)) < len(seeds):
            self.fail(("seeds",), "'seeds' must be a list of different whole numbers, such as [0, 1, 2]")
        if not isinstance(tree["runs"], dict) or not tree["runs"]:
            self.fail(("runs",), "'runs' must name at least one: {NAME: {KEY of ccl fit: VALUE}}")
        runs = tuple(self._run(self._name(("runs", str(key)), key), value) for key, value in tree["runs"].items())
        rows = self._rows(tree, runs)
        names = [row.name for row in rows]
        try:
            decided = claims.read(tree.get("claims"), names)
        except ValueError as error:
            self.fail(("claims",), str(error))
        return Matrix(
            name=name,
            about=" ".join(str(tree["about"]).split()),
            seeds=tuple(seeds),
            config=tuple(self.files("config", tree)),
            runs=runs,
            rows=rows,
            train=self.keys_of_fit(("train",), tree.get("train")),
            over=over,
            test=self._made(Testing, ("test",), tree.get("test"), {}),
            scores=self._scores(tree.get("scores")),
            compare=self._compare(tree.get("compare"), names),
            claims=decided,
        )

    def _name(self, path: Where, given: Any) -> str:
        if not isinstance(given, str) or not NAME.fullmatch(given):
            self.fail(
                path, f"the name {given!r} must be of letters, digits and . _ + = -, as folders are named after it"
            )
        return given

    def _run(self, name: str, node: Any) -> Run:
        path = (RUNS, name)
        if isinstance(node, dict) and "ckpt" in node:
            self.keys(path, node, ("ckpt",))
            return Run(name, ckpt="" if node["ckpt"] is None else str(node["ckpt"]))
        return Run(name, self.keys_of_fit(path, node))

    def keys_of_fit(self, path: Where, node: Any) -> dict[str, Any]:
        if node is not None and (not isinstance(node, dict) or not all(isinstance(key, str) for key in node)):
            self.fail(path, f"'{'.'.join(path)}' must have keys of `ccl fit`, such as trainer.max_steps: 400")
        for key in node or ():
            if key in ("name", "runs_dir", "ckpt_path", "seed_everything", "model.seed", "config"):
                self.fail((*path, key), f"'{key}' follows from the matrix and cannot be set here")
        return dict(node or {})

    def _rows(self, tree: dict[str, Any], runs: tuple[Run, ...]) -> tuple[Row, ...]:
        given, known = tree.get("rows") or [], [run.name for run in runs]
        if not isinstance(given, list):
            self.fail((ROWS,), "'rows' must be a list: [{name: ..., run: ..., guidance: ...}]")
        usual = tree.get("sampling") or {}
        self._made(Sampling, ("sampling",), usual, {})
        rows: list[Row] = []
        for index, node in enumerate(given):
            path = (ROWS, str(index))
            self.keys(path, node, [field.name for field in fields(Row)], ("name",))
            name = self._name((*path, "name"), node["name"])
            if name in [row.name for row in rows]:
                self.fail((*path, "name"), f"two rows are named '{name}'")
            run = node.get("run", name)
            if run not in known:
                near = did_you_mean(str(run), known) or f"; there are: {', '.join(known)}"
                self.fail((*path, "run"), f"the row '{name}' is of the run '{run}', which is none of this matrix{near}")
            sampling = self._made(Sampling, (*path, "sampling"), node.get("sampling"), usual)
            rule = self._guidance((*path, "guidance"), node.get("guidance"), sampling.scale)
            rows.append(Row(name, run, rule, sampling, node.get("paper")))
        return tuple(rows)

    def _guidance(self, path: Where, node: Any, scale: Mapping[str, float] | None) -> dict[str, Any] | None:
        rule = inlined(node)
        if rule is not None and (not isinstance(rule, dict) or not isinstance(rule.get("class_path"), str)):
            self.fail(
                path, "'guidance' must be a YAML file of a rule, or class_path and init_args; none is the model's"
            )
        if rule is not None and scale is not None and "scale" in (rule.get("init_args") or {}):
            rule = {**rule, "init_args": {**rule["init_args"], "scale": dict(scale)}}
        return rule

    def _made(self, cls: Any, path: Where, node: Any, usual: Mapping[str, Any]) -> Any:
        """A dataclass from its keys, over the usual ones."""
        given = {**usual, **self.keys(path, {} if node is None else node, [field.name for field in fields(cls)])}
        try:
            return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
        except (TypeError, ValueError) as error:
            self.fail(path, f"{'.'.join(path)}: {error}")

    def _scores(self, given: Any) -> dict[str, Any]:
        """Metrics by name: a list of names, or of {name: its node in a protocol}."""
        if given is None:
            return {}
        items: list[tuple[Any, Any]] = []
        for one in given if isinstance(given, list) else [given]:
            items += one.items() if isinstance(one, dict) else [(one, None)]
        if not all(isinstance(name, str) and isinstance(node, dict | None) for name, node in items):
            self.fail(("scores",), "'scores' must list metrics, such as [mouth, {wer: {init_args: {model: tiny.en}}}]")
        return {name: node or {} for name, node in items}

    def _compare(self, given: Any, names: list[str]) -> tuple[tuple[str, str], ...]:
        if given is None:
            return tuple((row, above) for above, row in pairwise(names))
        for index, pair in enumerate(given if isinstance(given, list) else [given]):
            if not isinstance(pair, list) or len(pair) != 2 or not set(pair) <= set(names) or pair[0] == pair[1]:
                self.fail(("compare", str(index)), f"compare names {pair}; it must be two rows of: {', '.join(names)}")
        return tuple((first, second) for first, second in given)


def _lines(node: yaml.Node, path: Where = ()) -> Iterator[tuple[Where, int]]:
    """Keys of a tree, and places in its lists, with their lines."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, str(key.value)), key.start_mark.line + 1
            yield from _lines(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, str(index)), value.start_mark.line + 1
            yield from _lines(value, (*path, str(index)))


def _replaced(tree: Any, parts: Mapping[str, str]) -> Any:
    """A tree with other part files in the place of some."""
    if isinstance(tree, dict):
        return {key: _replaced(value, parts) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_replaced(value, parts) for value in tree]
    return parts.get(tree, tree) if isinstance(tree, str) else tree


def inlined(tree: Any) -> Any:
    """A tree of a matrix with the YAML files that it names read in."""
    from ccl.cli.check import inlined as read_in

    return read_in(tree, Path())
