"""What a metric promises: for each clip numbers or one reason, never a silent gap.

A metric is a torchmetrics.Metric: `update(clips)` scores clips (films, ccl.types.Clip or paths) and gathers, `compute`
gives the means, `forward` both. Below it stand two steps that the runner of a whole test set calls by itself, so that
a film is decoded once for all metrics and dropped before the networks run: `prepare` takes what the metric needs from
one film, `measure` turns a batch of that into numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchmetrics

from ccl import arguments
from ccl.evaluation.exact import exact
from ccl.evaluation.film import Film
from ccl.files import machine_trouble
from ccl.media import Clip
from ccl.rows import Row
from ccl.weights.catalogue import MissingWeights


@dataclass(frozen=True)
class Column:
    """A number of a clip, as rows and tables name it.

    Args:
        name: in scores.jsonl, the same in all tables: "sync_c".
        title: in tables: "Sync-C".
        better: which way is better; "" where neither is.
        digits: decimals shown.
        percent: shown times 100 with a % sign.
        over: for a corpus rate, the columns whose sums are divided (errors, words); else the mean over clips is taken.
        shown: whether tables have it; counts are rows only.
        pooled: a number of a whole set, from `Metric.pool`; no clip has a row of it.
        also: what other tables call it: "LSE-C".
        sync: it says how well sound and pictures go together, which controls try (`ccl.evaluation.controls`).
        width: of a pooled number, how many features a clip has; of fewer clips than that tables say that it is biased.
    """

    name: str
    title: str
    better: Literal["higher", "lower", ""] = "higher"
    digits: int = 2
    percent: bool = False
    over: tuple[str, str] | None = None
    shown: bool = True
    pooled: bool = False
    also: str = ""
    sync: bool = False
    width: int = 0

    def aggregate(self, values: dict[str, np.ndarray]) -> float:
        """The value over clips from the (n,) values of each column by name; NaN is a clip without one. NaN if none."""
        if self.over is not None:
            top, bottom = (np.nansum(values[name]) for name in self.over)
            return float(top / bottom) if bottom else float("nan")
        own = values[self.name][~np.isnan(values[self.name])]
        return float(own.mean()) if len(own) else float("nan")


@dataclass(frozen=True)
class Measured:
    """What a metric says of one clip.

    Args:
        values: a number for each of the metric's columns.
        feature: for measures of whole sets (Frechet distances, chance by shuffling): kept for `pool`.
        text: what a reader would like to see beside the numbers: the transcript.
    """

    values: dict[str, float]
    feature: np.ndarray | None = None
    text: str = ""


@dataclass(frozen=True)
class Failed:
    """Why a clip has no numbers of this metric.

    Args:
        reason: in words, without the clip's name.
        applicable: whether there was something to measure. False is no failure: nothing was to be spoken.
    """

    reason: str
    applicable: bool = True


Result = Measured | Failed


class Metric(torchmetrics.Metric, ABC):
    """A measure of clips. A new metric is a subclass in a file of its own.

    Class attributes: `name`, short, as on the command line; `columns`; `usual`, whether `ccl evaluate` measures it
    without being asked for it by name; `batch_size`, how many clips `measure` takes together, and `gpu_batch_size`, its
    default on a GPU. The constructor takes conventions and weights, with defaults, and loads nothing: `measure` does.
    """

    name: str
    columns: tuple[Column, ...]
    usual: bool = True
    batch_size: int = 1
    gpu_batch_size: int = 16
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.values: list[torch.Tensor]
        # Why it cannot run, whatever the clip: weights that cannot be read, a package; None before they are needed.
        self.fault: str | None = None

    def batch_for(self, device: str) -> None:
        """Take as many clips together as the device likes; for the constructors of metrics that have one."""
        if torch.device(device).type != "cpu":
            self.batch_size = self.gpu_batch_size

    @abstractmethod
    def prepare(self, film: Film) -> Any:
        """What `measure` needs of one film: small, for it is kept while a batch gathers, and the film is not.

        Raises:
            Unscorable: with the reason, where the clip cannot have a value.
        """

    @abstractmethod
    def measure(self, inputs: Sequence[Any]) -> Sequence[Result]:
        """Numbers for a batch of what `prepare` gave, or why one has none after all; under inference mode."""

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        """Why a row of a test set has nothing for this metric to measure, which is no failure; "" where it has.

        Args:
            row: of the test set.
            speech: whether any row of the test set says what is to be spoken.
        """
        return ""

    def missing(self) -> str:
        """What the metric lacks to run here (weights, a package), in one sentence with the remedy; "" if nothing."""
        try:
            self.find()
        except ValueError as error:  # MissingWeights is one
            return str(error)
        return ""

    def find(self) -> object:
        """Look for the weights, where there are any. ValueError says in a sentence what is not here."""
        return None

    def load(self) -> None:
        """Read the weights, once, where there are any. ValueError names a file that is not theirs."""

    def protocol(self) -> dict[str, Any]:
        """Everything the numbers depend on, for the table's notes: conventions, detector, sha256 of weights. JSON."""
        return {}

    def pool(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray] | None = None) -> dict[str, float]:
        """Numbers of a whole set from its clips' features, and those of reference clips where there are any."""
        return {}

    def score(self, sources: Iterable[Film | Clip | str | Path]) -> list[Result]:
        """A result for each clip, in order; never raises for a clip's sake, but for the machine's.

        Raises:
            ValueError: what is given is one clip or name, and no list of them.
        """
        if isinstance(sources, str | Path | Clip | Film):  # a name would be walked over letter by letter
            one = f"not {str(sources)!r}" if isinstance(sources, str | Path) else "not one"
            raise ValueError(f"{self.name} takes a list of clips, {one}; put it in brackets")
        arguments.instance(self.name, sources, Iterable, "given a list of clips")
        results: list[Result | None] = []
        inputs: list[Any] = []
        for source in sources:
            try:
                inputs.append(self.prepare(Film.of(source)))
                results.append(None)
            except Exception as error:  # one clip's trouble is a row, not a crash
                results.append(self.failed(error))
        measured = iter(self.measured(inputs))
        return [next(measured) if result is None else result for result in results]

    def measured(self, inputs: Sequence[Any]) -> list[Result]:
        """`measure` in batches; where a batch fails, clip by clip, so that the fault stays with its clip."""
        results: list[Result] = []
        with torch.inference_mode(), exact():
            if inputs and self.fault is None:
                try:
                    self.load()
                    self.fault = ""
                except Exception as error:  # a wrong file is read once, not for every clip
                    self.fault = failed(error).reason
            for start in range(0, len(inputs), self.batch_size):
                batch = inputs[start : start + self.batch_size]
                if self.fault:
                    results += [Failed(self.fault)] * len(batch)
                    continue
                try:
                    results += map(finite, self.measure(batch))
                except Exception as error:
                    fault = self.failed(error)
                    results += [fault] if len(batch) == 1 else [self.measured([one])[0] for one in batch]
        return results

    def failed(self, error: Exception) -> Failed:
        """As the function of this name; what is no clip's fault, a package or weights, is the metric's from here on."""
        result = failed(error)
        if isinstance(error, ImportError | MissingWeights):
            self.fault = result.reason
        return result

    # torchmetrics ---------------------------------------------------------------------------------------------------

    def update(self, sources: Iterable[Film | Clip | str | Path]) -> None:
        """Score clips and gather the values; `score` also tells why a clip has none.

        Raises:
            ValueError: the metric cannot run here; says what is missing.
        """
        if reason := self.missing():
            raise ValueError(reason)
        for result in self.score(sources):
            self.gather(result)

    def gather(self, result: Result) -> None:
        """Keep a clip's values for `compute`."""
        values = result.values if isinstance(result, Measured) else {}
        row = [values.get(column.name, float("nan")) for column in self.columns]
        self.values.append(torch.tensor([row], dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        """Each column over all clips so far, and how many were "scored" and "failed"."""
        gathered = self.values if isinstance(self.values, torch.Tensor) else torch.cat([*self.values, self._no_rows()])
        values = {column.name: gathered[:, i].numpy(force=True) for i, column in enumerate(self.columns)}
        scored = int((~gathered.isnan()).any(1).sum())
        counts = {"scored": float(scored), "failed": float(len(gathered) - scored)}
        return {column.name: column.aggregate(values) for column in self.columns} | counts

    def _no_rows(self) -> torch.Tensor:
        return torch.empty(0, len(self.columns), dtype=torch.float64)


def finite(result: Result) -> Result:
    """The result; why there is none where a clip's feature, which a whole set would follow from, is no number."""
    if isinstance(result, Measured) and result.feature is not None and not np.isfinite(result.feature).all():
        return Failed("its features are not finite")
    return result


def failed(error: Exception) -> Failed:
    """The reason in words; an error nobody foresaw keeps its type, for it may be a bug.

    Raises:
        Exception: the very error, where it is the machine's trouble: no clip is to have it as its result.
    """
    if machine_trouble(error):
        raise error
    foreseen = isinstance(error, ValueError)
    text = " ".join(str(error).split())
    return Failed(
        getattr(error, "reason", text) if foreseen and text else f"{type(error).__name__}: {text}".rstrip(": ")
    )
