"""Runs the workers of a measurement and gathers what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from ccl import __version__, planning
from ccl.bench import subject
from ccl.bench.result import summary
from ccl.cli.costs import TERA, sampled
from ccl.cli.gpus import GPUS
from ccl.cli.plan import FORMAT
from ccl.cli.planned import Needs, Planned, planned_of
from ccl.files import own_folder

WARM = 2  # steps that come first and are not counted
SHARE = 0.9  # of the memory that is free
Told = Callable[[int, int, str], None]
# What is freed leaves the process, so that its peak is that of tensors. That takes time: memory has its own worker.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def training(argv: list[str], args: Any, modes: list[str] | None, told: Told) -> dict[str, Any]:
    """Steps of training in each mode, and their memory."""
    planned, device = here(planned_of(argv)), kind()
    modes = modes or (["eager", "compile"] if device == "cuda" else ["eager"])
    jobs = len(modes) + 1
    needs = Needs(lambda done, of, now: told(0, jobs, f"planning, {now}"))

    def total(one: Planned) -> float:
        return float(needs.memory(one, args.gpus, device=device).total)

    layers = kept(planned, needs, args.layers, total)
    profiled = WARM + args.steps
    measured = subject.subject(planned, needs, layers=layers, devices=args.gpus, steps=profiled + 1)
    flops = task_flops(measured, needs)
    result = about(argv, planned, measured, needs)
    result |= {"batch": planned.batch, "accumulated": planned.accumulated, "flops": flops, "modes": {}, "memory": None}
    whole = task_flops(planned, needs) if result["slice"] else flops
    for i, mode in enumerate(modes):
        told(i, jobs, mode)
        found = work(subject.compiled(measured, mode), profiled=profiled)
        if "error" in found:
            result["modes"][mode] = found
            continue
        result |= {key: found[key] for key in ("device", "processes", "threads")}
        result["peak"], result["peak_of"] = peak_of(found, args.tflops)
        one = summary(found, flops, planned.batch, result["peak"], WARM)
        if result["slice"]:
            of = sum(whole[name] * n for name, n in one["tasks"].items())
            times = of / sum(flops[name] * n for name, n in one["tasks"].items())
            one["whole"] = {
                "seconds_a_step": one["seconds_a_step"] * times,
                "clips_per_second": one["clips_per_second"] / times,
            }
        result["modes"][mode] = {**one, "kernels": found["kernels"], "each": found["steps"]}
    told(len(modes), jobs, "memory")
    found = work(subject.compiled(subject.in_turn(measured), modes[0]), memory=True)
    if "error" not in found:
        count = planned_memory(measured, needs, args.gpus, device)
        result["memory"] = {"measured": found["memory"], "planned": count}
    return result


def sampling(argv: list[str], args: Any, modes: list[str] | None, told: Told) -> dict[str, Any]:
    """Evaluations of a clip."""
    planned, device = here(planned_of(argv)), kind()
    needs = Needs(lambda done, of, now: told(0, 2, f"planning, {now}"))

    def total(one: Planned) -> float:
        _, clip = sampled(one, needs, device)
        return float(clip.weights + clip.rest)

    layers = kept(planned, needs, args.layers, total)
    measured = subject.subject(planned, needs, layers=layers, devices=1, steps=1)
    rule, clip = sampled(measured, needs, device)
    _, whole = sampled(planned, needs, device)
    result = about(argv, planned, measured, needs)
    result |= {"rule": type(rule).__name__, "passes": clip.passes, "modes": {}, "memory": None}
    told(0, 2, "evaluations")
    found = work(measured, generate=True, steps=args.steps + 1)
    if "error" in found:
        return result | {"device": {"type": device, "name": device}, "threads": 0, "modes": {"eager": found}}
    result |= {key: found[key] for key in ("device", "processes", "threads")}
    result["peak"], result["peak_of"] = peak_of(found, args.tflops)
    seconds = found["seconds"][1:] or found["seconds"]
    each = sum(seconds) / len(seconds)
    rate = clip.flops / clip.evaluations / each
    result["modes"]["eager"] = {
        "first": found["seconds"][0],
        "seconds_an_evaluation": each,
        "evaluations": clip.evaluations,
        "seconds_a_clip": each * clip.evaluations * whole.flops / clip.flops,
        "flops_per_second": rate,
        "mfu": rate / result["peak"] if result["peak"] else None,
    }
    told(1, 2, "memory")
    found = work(measured, generate=True, steps=2, memory=True)
    if "error" not in found:
        result["memory"] = {"measured": found["memory"], "planned": {"weights": clip.weights, "rest": clip.rest}}
    return result


def kept(planned: Planned, needs: Needs, asked: int | None, total: Callable[[Planned], float]) -> int:
    """Blocks: as many as are asked for, or as memory holds."""
    return subject.asked(planned, asked) if asked else subject.fitting(planned, needs, room() * SHARE, total)


def here(planned: Planned) -> Planned:
    """A config on what this machine has, whatever accelerator it asks for."""
    return replace(planned, config={**planned.config, "trainer": {**planned.config["trainer"], "accelerator": "auto"}})


def kind() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def room() -> float:
    """Bytes that are free on a GPU, or in this machine's memory; no bound where it does not tell."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def task_flops(planned: Planned, needs: Needs) -> dict[str, float]:
    """Model FLOPs of a clip in training, by task."""
    found = {}
    for name, task in planned.tasks.items():
        if task.prob:
            mean = planning.mean_flops(lambda view: needs.forward(planned, view), {name: task})
            found[name] = planning.training_flops(mean, checkpointing=False)
    return found


def planned_memory(planned: Planned, needs: Needs, devices: int, device: str) -> dict[str, float]:
    """What `ccl plan` says of memory, by part, with this device's kernels."""
    return {key: float(x) for key, x in asdict(needs.memory(planned, devices, device=device)).items()}


def about(argv: list[str], planned: Planned, measured: Planned, needs: Needs) -> dict[str, Any]:
    """What is told of a measurement whatever came out."""
    layers = [int(one.config["model"]["net"]["init_args"]["layers"]) for one in (measured, planned)]
    names = {c["class_path"].rpartition(".")[2] for c in planned.config["trainer"]["callbacks"] or []}
    kept = {c["class_path"].rpartition(".")[2] for c in measured.config["trainer"]["callbacks"]}
    grid, net = planned.grid, planned.config["model"]["net"]["init_args"]
    return {
        "format": FORMAT,
        "ccl": __version__,
        "torch": torch.__version__,
        "argv": argv,
        "precision": str(planned.config["trainer"]["precision"]),
        "tokens": {"video": grid.s_v * bool(net["video"]), "audio": grid.t_a * bool(net["audio"])},
        "slice": None if layers[0] == layers[1] else {"layers": layers[0], "of": layers[1]},
        "left_out": sorted(names - kept),
    }


def peak_of(found: dict[str, Any], given: float | None) -> tuple[float | None, str]:
    """FLOPs a second that a device can do, None where that is not known, and where that is from."""
    if given is not None:
        return given * TERA, "--tflops"
    if found["products"] is not None:
        return found["products"], "a large float32 product here"
    name = found["device"]["name"].lower()
    for key in sorted(GPUS, key=len, reverse=True):
        if all(word in name for word in key.split("-")):
            return GPUS[key].tflops * TERA, f"the data sheet of {key}"
    return None, f"{found['device']['name']}, whose data sheet is not known here: give --tflops"


def work(
    planned: Planned,
    *,
    profiled: int | None = None,
    memory: bool = False,
    generate: bool = False,
    steps: int = 0,
) -> dict[str, Any]:
    """What a worker finds; {"error": a sentence} where it fails.

    Args:
        planned: what it measures.
        profiled: the step that is looked at by torch's profiler.
        memory: memory alone counts, not time.
        generate: sampling instead of training.
        steps: evaluations of sampling.
    """
    with own_folder("ccl-bench-") as folder:
        config, order, out = (folder / name for name in ("config.yaml", "order.json", "found.json"))
        config.write_text(yaml.safe_dump({**planned.config, "runs_dir": str(folder)}))
        said = {"config": str(config), "out": str(out), "path": sys.path, "memory": memory}
        order.write_text(json.dumps(said | {"profiled": profiled, "generate": generate, "steps": steps}))
        environment = {**os.environ, **(EXACT if memory else {})}
        command = [sys.executable, "-m", "ccl.bench.worker", str(order)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode or not out.is_file():
            words = [line for line in done.stderr.splitlines() if line.strip()]
            return {"error": words[-1] if words else f"its process ended with status {done.returncode}"}
        return json.loads(out.read_text())
