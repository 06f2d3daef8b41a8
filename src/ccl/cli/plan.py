"""`ccl plan`: what a config of `ccl fit` costs, printed before it is run."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ccl import __version__
from ccl.cli.as_json import add_json, say_json
from ccl.cli.errors import compose
from ccl.cli.front import config_files
from ccl.cli.gpus import GPUS, MFU, gpu_of
from ccl.cli.parser import Number, Parser, Whole, path_of, text_of
from ccl.progress import bar

if TYPE_CHECKING:
    from ccl.cli.costs import SamplingCost, TrainingCost

MOST_GPUS = 1_000_000
FORMAT = 1  # of the JSON of `ccl bench`


def main(argv: list[str]) -> int:
    parser = Parser(
        "plan",
        "Print what a config of `ccl fit` costs: parameters, FLOPs, memory a GPU, time; with --generate, what a clip "
        "costs. Other options are those of `ccl fit`.",
        "ccl plan --config configs/joint.yaml --config configs/model/wan1_3b.yaml --gpus 1 8",
        "ccl plan --config configs/joint.yaml --config configs/model/wan14b.yaml --generate",
        "ccl plan --config configs/joint.yaml --gpus 1 --json > plan.json",
    )
    parser.add_argument(
        "--gpus", type=Whole(1, MOST_GPUS), nargs="+", help="numbers of GPUs (as many as the config has processes)"
    )
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--mfu",
        type=Number(0, 1, above=True),
        default=MFU,
        help="share of its peak that a GPU reaches, in the model's own FLOPs (%(default)s, the lowest published)",
    )
    rate.add_argument("--measured", type=path_of, help="what `ccl bench -o` wrote, in the place of --mfu and --tflops")
    parser.add_argument("--gpu", type=text_of, default="h100", help=f"its name (%(default)s): {', '.join(GPUS)}")
    parser.add_argument(
        "--tflops", type=Number(0, above=True), help="peak of a GPU, bf16 without sparsity (that of --gpu)"
    )
    parser.add_argument("--memory", type=Number(0, above=True), help="of a GPU, GB (that of --gpu)")
    parser.add_argument("--generate", action="store_true", help="the cost of a clip instead of that of training")
    add_json(parser)
    args, rest = parser.parse_known(argv)
    if not config_files(rest):
        parser.error("it needs a config, as `ccl fit` does: --config configs/joint.yaml")
    for file in config_files(rest):
        compose(file)  # told before anything large is imported
    named = gpu_of(args.gpu)
    tflops = named.tflops if args.tflops is None else args.tflops
    memory = named.memory if args.memory is None else args.memory
    speed, reached = f"{tflops:g} TFLOP/s at {100 * args.mfu:.3g}%", args.mfu * tflops
    if args.measured is not None:
        try:
            speed, reached = measured(args.measured, generate=args.generate)
        except ValueError as error:
            parser.error(f"--measured: {error}")
    from ccl.cli.costlines import lines_of, notes
    from ccl.cli.costs import GB, GPU, TERA, sampling, training
    from ccl.cli.fit import quiet
    from ccl.cli.own import reachable
    from ccl.cli.planned import Needs, not_here, planned_of

    logging.getLogger("lightning.fabric.utilities.seed").addFilter(quiet)
    gpu = GPU(memory * GB, reached * TERA, speed)
    cost: TrainingCost | SamplingCost
    with reachable(config_files(rest), rest):
        planned = planned_of(rest)
        with bar("Planning") as told:
            needs = Needs(told)
            gpus = args.gpus or [planned.processes]
            cost = sampling(planned, needs, gpu, gpus) if args.generate else training(planned, needs, gpu, gpus, rest)
    absent = {str(file): said for file in config_files(rest) if (said := not_here(file))}
    if args.json:
        kind = "sampling" if args.generate else "training"
        configs = [str(file) for file in config_files(rest)]
        say_json({"ccl": __version__, "plan": kind, "configs": configs, "not_here": absent, **asdict(cost)})
        sys.stderr.write("".join(f"note: {note}\n" for note in notes(cost)))
    else:
        lines = [*lines_of(cost), *(f"Not here: {said} ({file})" for file, said in absent.items())]
        sys.stdout.write("\n".join(lines) + "\n")
    return 0


def measured(path: Path, *, generate: bool) -> tuple[str, float]:
    """What `ccl bench` found of one device: in words, and the 10^12 model FLOPs a second of its fastest mode.

    Raises:
        ValueError: the file is none of its, or of another format; or of training where sampling is planned, or the
            other way round.
    """
    from ccl.files.errors import reading

    with reading(path, "a measurement"):
        found = json.loads(path.read_text(encoding="utf-8"))
    try:
        if found["format"] != FORMAT:
            raise ValueError(f"{path} is of format {found['format']}; this version of `ccl bench` writes {FORMAT}")
        modes = {name: mode["flops_per_second"] for name, mode in found["modes"].items() if "error" not in mode}
        sampling, device = "rule" in found, found["device"]["name"]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not what `ccl bench -o` writes") from None
    if not modes:
        raise ValueError(f"{path} holds no mode that was measured")
    if sampling != generate:
        made, wanted = ("--generate", "without it") if sampling else ("without --generate", "with it")
        raise ValueError(f"{path} was made by `ccl bench` {made}; this plan needs one {wanted}")
    fastest = max(modes, key=lambda name: modes[name])
    return f"{modes[fastest] / 1e12:.3g} TFLOP/s, measured on {device}, {fastest}", modes[fastest] / 1e12
