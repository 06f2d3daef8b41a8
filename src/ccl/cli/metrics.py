"""The metrics of `ccl evaluate`: those asked for or that fit, with the conventions of a YAML, and of the user's own."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccl.cli.errors import UsageError, read_yaml
from ccl.cli.machine import best_device
from ccl.cli.protocols import Protocol
from ccl.spelling import did_you_mean

if TYPE_CHECKING:
    from ccl.evaluation.metrics import Metric
    from ccl.rows import Row


# Names of the metrics, ccl.evaluation.METRICS, which a wrong name must not wait for.
NAMES = (
    *("audiobox", "wer", "sync", "desync", "ib", "dnsmos", "av_align", "onset", "fvd", "mouth", "colours"),
    *("clap", "clip", "ib_text", "javis"),
    *("lufs", "lengths", "dynamics"),
    *("speaker", "face", "dino", "aesthetic", "musiq"),
    *("fad", "panns", "kl", "passt", "kl_passt"),
)
# What others call a metric of ours, or one of its columns.
ALIASES = dict.fromkeys(("lse-c", "lse-d", "sync-c", "sync-d"), "sync")


def names_of(args: Namespace, protocols: Sequence[Protocol] = ()) -> list[str]:
    """The metrics asked for; none where none are.

    Raises:
        UsageError: there is none of that name, neither ours nor one that a protocol names.
    """
    known = list(dict.fromkeys([*NAMES, *(str(name) for protocol in protocols for name in protocol.tree)]))
    asked = (name for word in args.metrics or () for name in word.split(",") if name)
    names = list(dict.fromkeys(ALIASES.get(name.lower().replace("_", "-"), name) for name in asked))
    if args.metrics and not names:
        raise UsageError(f"--metrics names none; there are: {', '.join(known)}")
    for name in names:
        if name not in known:
            raise UsageError(f"there is no metric '{name}'{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return names


def metrics_of(
    args: Namespace,
    rows: list[Row],
    referenced: bool = False,
    protocol: Protocol | None = None,
    beside: Sequence[Protocol] = (),
) -> list[Metric]:
    """The metrics asked for, or all usual ones that fit the test set, with the command line's and a protocol's words.

    Args:
        args: the command line.
        rows: of the test set.
        referenced: whether the rows' true clips will be there, where they are not yet.
        protocol: whose conventions stand; None is every metric's own.
        beside: all protocols that a table is to have. Where there are several, each measures what it states.

    Raises:
        UsageError: there is no such metric, or no such convention; of several protocols this one states no metric that
            is asked for.
    """
    from ccl.cli.parts import device_of
    from ccl.evaluation.metrics import METRICS

    stated, own = protocol_of(protocol.file) if protocol and protocol.file else ({}, {})
    known = METRICS | own
    names = names_of(args, beside or ([protocol] if protocol else ()))
    if len(beside) > 1 and protocol and protocol.file:
        asked_for = names or list(stated)
        names = [name for name in asked_for if name in stated]
        if not names:
            raise UsageError(
                f"protocol {protocol.name} states {', '.join(stated)}, and nothing of {', '.join(asked_for)}"
            )
    if not names:
        unfit = {name for name, cls in known.items() if not cls.usual} | (set() if args.reference else {"fvd"})
        true = args.reference or any(row.reference and (referenced or Path(row.reference).is_file()) for row in rows)
        unfit |= set() if true else {"onset"}
        unfit |= set() if any("world" in row.id for row in rows) else {"mouth", "colours"}
        names = [name for name in known if name not in unfit]
    asked = {"device": device_of(args.device), "precision": args.precision, "model": args.whisper}
    usual = {"device": best_device()}
    metrics = []
    for name in names:
        cls, settings = known[name], dict(stated.get(name, {}))
        takes = inspect.signature(cls).parameters
        settings |= {key: value for key, value in asked.items() if key in takes and value is not None}
        settings = {key: value for key, value in usual.items() if key in takes} | settings
        try:
            metric = cls(**settings)
        except (TypeError, ValueError) as error:
            raise UsageError(f"metric {name}: {error}") from error
        if args.batch_size:
            metric.batch_size = args.batch_size
        metrics.append(metric)
    return metrics


def protocol_of(file: Path) -> tuple[dict[str, dict[str, Any]], dict[str, type[Metric]]]:
    """Conventions from a YAML file.

    Returns:
        init_args by metric, and the metrics of the user's own, which the file names by class_path.

    Raises:
        UsageError: names the key that does not belong.
    """
    from ccl.cli.parts import build
    from ccl.evaluation.metrics import METRICS

    tree = read_yaml(file)
    found: dict[str, dict[str, Any]] = {}
    own: dict[str, type[Metric]] = {}
    for name, node in tree.items():
        node = {} if node is None else node
        path = node.get("class_path") if isinstance(node, dict) else None
        if name not in METRICS:
            if not isinstance(path, str) or "." not in path:
                near = did_you_mean(str(name), METRICS)
                raise UsageError(
                    f"{file}: there is no metric '{name}'{near}; one of your own needs class_path: MODULE.CLASS"
                )
            own[name] = own_metric(path, name, file)
        settings = (node.get("init_args") or {}) if isinstance(node, dict) else None
        if not isinstance(settings, dict) or node.keys() - {"class_path", "init_args", "lacks"}:
            raise UsageError(
                f"{file}: metric {name} must have init_args: {{...}}, and class_path and lacks at most beside them"
            )
        cls = own[name] if name in own else METRICS[name]
        if name not in own and path not in (None, right := f"ccl.evaluation.metrics.{cls.__name__}"):
            raise UsageError(f"{file}: metric {name} is {right}, not {path}")
        takes = inspect.signature(cls).parameters
        for key in settings:
            if key not in takes:
                raise UsageError(f"{file}: metric {name} has no '{key}'{did_you_mean(str(key), takes)}")
        place = f"{file}: metric {name}"
        try:
            build(cls, {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": settings}, place)
        except UsageError as error:
            key, _, what = str(error).rpartition('Parser key "')[2].partition('": ')
            raise UsageError(f"{place}, {key}: {what}" if what else str(error)) from error
        found[name] = settings
    return found, own


def own_metric(path: str, name: str, file: Path) -> type[Metric]:
    """A metric of the user's own. UsageError where the class is none, or goes by another name."""
    from ccl.evaluation.metrics import METRICS, Column, Metric

    place, (module, _, attribute) = f"{file}: metric {name}", path.rpartition(".")
    cls: Any = getattr(import_module(module), attribute)  # which is there: own.reachable has looked
    if not isinstance(cls, type) or not issubclass(cls, Metric):
        raise UsageError(f"{place} is {path}, which is no ccl.evaluation.Metric")
    if getattr(cls, "name", None) != name:
        raise UsageError(f"{place} is {path}, which calls itself '{getattr(cls, 'name', '')}'; give both one name")
    columns = getattr(cls, "columns", ())
    if not columns or not all(isinstance(column, Column) for column in columns):
        raise UsageError(f"{place}: {path} has no columns, a tuple of ccl.evaluation.Column")
    taken = {column.name: metric.name for metric in METRICS.values() for column in metric.columns}
    for column in columns:
        if column.name in taken:
            raise UsageError(
                f"{place}: the column '{column.name}' of {path} is that of the metric {taken[column.name]}"
            )
    return cls
