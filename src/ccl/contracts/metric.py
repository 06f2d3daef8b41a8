"""What a metric promises (`ccl.evaluation.metrics.base`): for each clip numbers or one reason, in any company."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from ccl.contracts.base import Broken, Clause, given, one_line, place, require
from ccl.evaluation.film import Film
from ccl.evaluation.metrics import METRICS, Column, Measured, Metric
from ccl.evaluation.metrics.base import Failed, Result
from ccl.files import machine_trouble
from ccl.media import Clip
from ccl.weights.catalogue import MissingWeights
from ccl.weights.find import Absent

FPS, RATE, FRAMES, SIDE = 25.0, 16_000, 25, 64
NEAR = 1e-3  # of a number, where a network's sums are in another order

Make = Callable[[], Metric]


def clips() -> dict[str, Clip]:
    """Clips by what is odd of them: two whole ones, and such as people bring."""
    rng = np.random.default_rng(0)
    samples = round(FRAMES / FPS * RATE)
    seconds = np.arange(samples) / RATE
    beeps = np.sin(2 * np.pi * 440 * seconds) * (seconds % 0.4 < 0.1) * 0.5
    pictures = np.full((FRAMES, SIDE, SIDE, 3), 90, np.uint8)
    for i, picture in enumerate(pictures):
        picture[20:44, (x := 2 * i) : x + 16] = (200, 40, 40)

    def clip(name: str, video: np.ndarray | None, audio: np.ndarray | None) -> Clip:
        return Clip(video, None if audio is None else audio.astype(np.float32), FPS, RATE, "a bell rings", name)

    return {
        "whole": clip("whole", pictures, beeps),
        "noisy": clip("noisy", rng.integers(0, 255, pictures.shape, np.uint8), rng.uniform(-0.5, 0.5, samples)),
        "silent": clip("silent", pictures, np.zeros(samples)),
        "dark and still": clip("dark and still", np.zeros_like(pictures), beeps),
        "without sound": clip("without sound", pictures, None),
        "without pictures": clip("without pictures", None, beeps),
        "of one picture": clip("of one picture", pictures[:1], beeps[: round(RATE / FPS)]),
    }


def is_built_with_a_name_and_columns(make: Make) -> None:
    metric = make()
    require(isinstance(metric, Metric), f"it is a {type(metric).__name__}, which is no Metric")
    require(isinstance(getattr(metric, "name", None), str) and metric.name, "it has no name")
    columns = getattr(metric, "columns", ())
    require(columns and all(isinstance(each, Column) for each in columns), "columns is no tuple of Columns")
    names = [column.name for column in columns]
    require(len(set(names)) == len(names), f"columns are {names}; their names must differ")
    taken = {c.name: m.name for m in METRICS.values() if type(metric) is not m for c in m.columns}
    for column in columns:
        require(column.name not in taken, f"the column '{column.name}' is that of {taken.get(column.name)}")
        require(column.better in ("higher", "lower", ""), f"{column.name}: better is '{column.better}'")
        for other in column.over or ():
            require(other in names, f"{column.name} is over '{other}', which is no column")
    require(metric.batch_size >= 1, f"batch_size is {metric.batch_size}; it must be at least 1")


def says_in_plain_values_what_its_numbers_depend_on(make: Make) -> str:
    said = ready(make).protocol()
    require(isinstance(said, dict), f"protocol() is a {type(said).__name__}; it must be a dict")
    return json.dumps(said, default=refuse)[:120]


def refuse(value: object) -> None:
    raise Broken(f"protocol() holds a {type(value).__name__}, which JSON cannot")


def gives_every_clip_its_numbers_or_a_reason(make: Make) -> str:
    metric, scored = ready(make), 0
    for name, clip in clips().items():
        result = result_of(metric, name, clip)
        if isinstance(result, Failed):
            require(result.reason.strip(), f"a clip {name} has neither numbers nor a reason")
            continue
        scored += 1
        require(result.values, f"a clip {name} has neither numbers nor a reason")
        for column, value in result.values.items():
            require(
                column in [each.name for each in metric.columns], f"a clip {name} has '{column}', which is no column"
            )
            require(np.isscalar(value) and np.isfinite(value), f"of a clip {name} {column} is {value}")
    return f"{scored} of {len(clips())} clips have numbers"


def result_of(metric: Metric, name: str, clip: Clip) -> Result:
    """As `score`, but what nobody foresaw is not a reason: Unscorable and other ValueErrors are."""
    try:
        results = metric.measure([metric.prepare(Film.of(clip))])
    except (MissingWeights, Absent):
        raise
    except ValueError as error:
        return Failed(one_line(error))
    except Exception as error:
        if machine_trouble(error):
            raise
        told = f"{type(error).__name__}: {one_line(error)}{place(error)}"
        raise Broken(f"of a clip {name} it raises {told}; a reason is an Unscorable") from error
    require(len(given(results, metric, "measure", Sequence)) == 1, f"of one clip it gives {len(results)} results")
    return given(results[0], metric, "measure", Measured, Failed, key="a result")


def gives_the_same_in_any_order_and_company(make: Make) -> None:
    few = list(clips().values())
    metric = ready(make)
    metric.batch_size = 1
    alone = metric.score(few)
    metric = ready(make)
    metric.batch_size = len(few)
    together = metric.score(few[::-1])[::-1]
    require(len(alone) == len(together) == len(few), f"it gives {len(together)} results for {len(few)} clips")
    for clip, a, b in zip(few, map(numbers, alone), map(numbers, together), strict=True):
        require(a.keys() == b.keys(), f"a clip {clip.id} has {sorted(a)} alone, and {sorted(b)} among others")
        for name, x in a.items():
            near = abs(x - b[name]) <= NEAR * max(1, abs(x))
            require(near, f"of a clip {clip.id} {name} is {x} alone, and {b[name]} among others in another order")


def means_over_clips_as_its_columns_say(make: Make) -> None:
    metric = ready(make)
    metric.update(clips().values())
    means = metric.compute()
    for column in metric.columns:
        require(column.name in means, f"compute() has no {column.name}")
    require(
        means["scored"] + means["failed"] == len(clips()),
        f"of {len(clips())} clips it counts {means['scored']:g} scored and {means['failed']:g} failed",
    )


def pools_the_features_of_a_set(make: Make) -> str | None:
    metric = ready(make)
    features = [r.feature for r in metric.score(clips().values()) if isinstance(r, Measured) and r.feature is not None]
    pooled = [column.name for column in metric.columns if column.pooled]
    if not features:
        require(not pooled, f"{', '.join(pooled)} is pooled, and no clip has a feature")
        return "it keeps no features"
    for name, value in metric.pool(features, features).items():
        require(np.isscalar(value), f"pool() gives {name} as a {type(value).__name__}")
    return None


def ready(make: Make) -> Metric:
    """The metric, where this machine has all that it needs."""
    metric = make()
    if reason := metric.missing():
        raise Absent(reason)
    metric.load()
    return metric


def numbers(result: Result) -> dict[str, float]:
    return result.values if isinstance(result, Measured) else {}


CLAUSES: tuple[Clause, ...] = (
    is_built_with_a_name_and_columns,
    says_in_plain_values_what_its_numbers_depend_on,
    gives_every_clip_its_numbers_or_a_reason,
    gives_the_same_in_any_order_and_company,
    means_over_clips_as_its_columns_say,
    pools_the_features_of_a_set,
)
