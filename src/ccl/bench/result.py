"""What was measured, as it is kept (JSON) and as it is printed, beside what `ccl plan` counts.

Model FLOPs are those of the forward and of the backward pass that autograd makes of it: what checkpointing computes
again is not counted as work.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from ccl.bench.timed import PARTS, attends
from ccl.cli.costlines import aligned
from ccl.cli.costs import GB, TERA
from ccl.spelling import counted

TELLING = 0.001  # of a step's time: wrappers of a kernel take less


def step_seconds(steps: list[dict[str, Any]]) -> float:
    return sum(sum(step[part] for part in PARTS) for step in steps)


def summary(
    found: dict[str, Any], flops: dict[str, float], batch: int, peak: float | None, warm: int
) -> dict[str, Any]:
    """The numbers of a mode of training.

    Args:
        found: what its worker wrote.
        flops: model FLOPs of a clip of each task.
        batch: clips of a process's step.
        peak: FLOPs a second that a device can do; None where that is not known.
        warm: steps that come first and are not counted.

    Returns:
        seconds a step by part (medians) and in all (the mean, as tasks differ), of the first step, clips a second of
        all processes, FLOPs a second of one and their share of the peak.
    """
    steps = found["steps"][warm:]
    whole = step_seconds(steps)
    work = sum(share * flops[name] * batch for step in steps for name, share in step["tasks"].items())
    return {
        "steps": len(steps),
        "seconds": {part: statistics.median(step[part] for step in steps) for part in PARTS},
        "seconds_a_step": whole / len(steps),
        "first_step": step_seconds(found["steps"][:1]),
        "clips_per_second": found["processes"] * batch * len(steps) / whole,
        "flops_per_second": work / whole,
        "mfu": work / whole / peak if peak else None,
        "tasks": tasks_of(steps),
    }


def tasks_of(steps: list[dict[str, Any]]) -> dict[str, float]:
    """How many steps trained each task."""
    counts: dict[str, float] = {}
    for step in steps:
        for name, share in step["tasks"].items():
            counts[name] = counts.get(name, 0.0) + share
    return counts


def memory_rows(measured: dict[str, int | None], planned: dict[str, float]) -> list[tuple[str, float, int | None]]:
    """(what, bytes planned, bytes measured): what is built, what training keeps of it, what a step holds, all."""
    built = planned["weights"] + planned["average"]
    kept = planned["gradients"] + planned["optimizer"]
    step = planned["gathered"] + planned["activations"]
    now = [measured.get(name) for name in ("built", "kept", "peak")]
    between = [None if a is None or b is None else b - a for a, b in zip([0, *now], now, strict=False)]
    return [
        ("weights, average", built, between[0]),
        ("gradients, AdamW", kept, between[1]),
        ("a step's activations", step, between[2]),
        ("all", built + kept + step, now[2]),
    ]


def lines(result: dict[str, Any]) -> Iterator[str]:
    """A result of training as it is printed."""
    device, modes = result.get("device"), result["modes"]
    if device is None:  # no mode has come to an end
        yield from (f"{name}: not measured: {mode['error']}" for name, mode in modes.items())
        return
    yield (
        f"{device['name']}, {device['type']}: {result['processes']} process{'es' * (result['processes'] > 1)}"
        f"{threads(result)}, {result['precision']}; {counted(result['batch'], 'clip')} a step of "
        f"{result['tokens']['video']:,} video and {result['tokens']['audio']:,} audio tokens"
    )
    if (cut := result["slice"]) is not None:
        yield f"measured on {cut['layers']} of {cut['of']} blocks; what stands behind ~ is extrapolated by FLOPs"
    if result["left_out"]:
        yield f"not there: {', '.join(result['left_out'])}; clips are noise, so that reading them costs nothing"
    rows = [["mode", *PARTS, "s a step", "first step", "clips/s", "TFLOP/s", "MFU"]]
    for name, mode in modes.items():
        if "error" in mode:
            continue
        cells = [f"{mode['seconds'][part]:.3g}" for part in PARTS]
        cells += [f"{mode['seconds_a_step']:.3g}", f"{mode['first_step']:.3g}", f"{mode['clips_per_second']:.3g}"]
        rows.append([name, *cells, f"{mode['flops_per_second'] / TERA:.3g}", share(mode)])
        if cut is not None:
            whole = mode["whole"]
            blank = [""] * len(PARTS)
            rows.append(
                ["", *blank, f"~{whole['seconds_a_step']:.3g}", "", f"~{whole['clips_per_second']:.3g}", "", ""]
            )
    yield from aligned(rows) if len(rows) > 1 else ()
    if len(rows) > 1:
        yield f"MFU: model FLOPs, of {peak_words(result)}"
    for name, mode in modes.items():
        if "error" in mode:
            yield f"{name}: not measured: {mode['error']}"
    if "compile" in modes and "error" not in modes["compile"]:
        extra = modes["compile"]["first_step"] - modes["compile"]["seconds_a_step"]
        yield f"compile: {extra:.3g} s to compile, once"
    yield from memory_lines(result)
    yield from kernel_lines(result)


def threads(result: dict[str, Any]) -> str:
    return f" of {counted(result['threads'], 'thread')}" if result["device"]["type"] == "cpu" else ""


def share(mode: dict[str, Any]) -> str:
    return "?" if mode["mfu"] is None else f"{mode['mfu']:.1%}"


def peak_words(result: dict[str, Any]) -> str:
    known = "" if result["peak"] is None else f"the {result['peak'] / TERA:.3g} TFLOP/s of "
    return f"{known}{result['peak_of']}"


def memory_lines(result: dict[str, Any]) -> Iterator[str]:
    memory = result["memory"]
    if memory is None or memory["measured"].get("peak") is None:
        yield "memory: not measured, as this system does not tell a process its own"
        return
    what = "allocated" if result["device"]["type"] == "cuda" else "resident growth"
    rows = [[f"memory, GB ({what})", "planned", "measured", "plan over measured"]]
    for name, planned, measured in memory_rows(memory["measured"], memory["planned"]):
        error = f"{planned / measured - 1:+.1%}" if measured else ""
        rows.append([name, f"{planned / GB:.3f}", "" if measured is None else f"{measured / GB:.3f}", error])
    yield from aligned(rows)


def kernel_lines(result: dict[str, Any]) -> Iterator[str]:
    for name, mode in result["modes"].items():
        if found := mode.get("kernels"):
            took = [one for one in found if attends(one["name"]) and one["share"] >= TELLING]
            listed = ", ".join(f"{short(one)} ({one['calls']} calls, {one['share']:.1%})" for one in took)
            yield f"attention, {name}: {listed or 'no kernel of its own'}"
            most = ", ".join(f"{short(one)} {one['share']:.0%}" for one in found[:5])
            yield f"most time, {name}: {most}"


def short(kernel: dict[str, Any], most: int = 60) -> str:
    """Its name as it is printed; a GPU's hold all their template's arguments."""
    name = str(kernel["name"]).removeprefix("aten::")
    return name if len(name) <= most else f"{name[:most]}..."


def sampling_lines(result: dict[str, Any]) -> Iterator[str]:
    """A result of sampling as it is printed."""
    device, mode = result["device"], result["modes"]["eager"]
    passes = f"{result['rule']}, {result['passes']:.3g} passes an evaluation"
    yield f"{device['name']}, {device['type']}{threads(result)}: {passes}"
    if (cut := result["slice"]) is not None:
        yield f"measured on {cut['layers']} of {cut['of']} blocks; what stands behind ~ is extrapolated by FLOPs"
    if "error" in mode:
        yield f"not measured: {mode['error']}"
        return
    clip = f"{'' if cut is None else '~'}{mode['seconds_a_clip']:.3g}"
    yield f"  an evaluation         {mode['seconds_an_evaluation']:9.3g} s (the first {mode['first']:.3g} s)"
    yield f"  a clip                {clip:>9} s, {mode['evaluations']} evaluations; decoding comes on top"
    yield f"  TFLOP/s               {mode['flops_per_second'] / TERA:9.3g}, MFU {share(mode)} of {peak_words(result)}"
    memory = result["memory"]
    if memory is not None and memory["measured"].get("peak"):
        planned, peak = sum(memory["planned"].values()), memory["measured"]["peak"]
        yield f"  memory, GB            {peak / GB:9.3f}, planned {planned / GB:.3f} ({planned / peak - 1:+.1%})"
