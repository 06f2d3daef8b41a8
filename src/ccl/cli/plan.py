"""`ccl plan`: what a config of `ccl fit` costs, printed before it is run."""

from __future__ import annotations

import logging
import sys

from ccl.cli.errors import compose
from ccl.cli.front import config_files
from ccl.cli.gpus import GPUS, gpu_of
from ccl.cli.parser import Number, Parser, Whole, text_of
from ccl.cli.progress import bar

MOST_GPUS = 1_000_000


def main(argv: list[str]) -> int:
    parser = Parser(
        "plan",
        "Print what a config of `ccl fit` costs: parameters, FLOPs, memory a GPU, time; with --generate, what a clip "
        "costs. Other options are those of `ccl fit`.",
        "ccl plan --config configs/joint.yaml --config configs/model/wan1_3b.yaml --gpus 1 8",
        "ccl plan --config configs/joint.yaml --config configs/model/wan14b.yaml --generate",
    )
    parser.add_argument(
        "--gpus", type=Whole(1, MOST_GPUS), nargs="+", default=[8, 32, 64], help="numbers of GPUs (8 32 64)"
    )
    parser.add_argument(
        "--mfu", type=Number(0, 1, above=True), default=0.4, help="share of its peak that a GPU reaches (%(default)s)"
    )
    parser.add_argument("--gpu", type=text_of, default="h100", help=f"its name (%(default)s): {', '.join(GPUS)}")
    parser.add_argument(
        "--tflops", type=Number(0, above=True), help="peak of a GPU, bf16 without sparsity (that of --gpu)"
    )
    parser.add_argument("--memory", type=Number(0, above=True), help="of a GPU, GB (that of --gpu)")
    parser.add_argument("--generate", action="store_true", help="the cost of a clip instead of that of training")
    args, rest = parser.parse_known(argv)
    if not config_files(rest):
        parser.error("it needs a config, as `ccl fit` does: --config configs/joint.yaml")
    for file in config_files(rest):
        compose(file)  # told before anything large is imported
    gpu = gpu_of(args.gpu)
    args.tflops = gpu.tflops if args.tflops is None else args.tflops
    args.memory = gpu.memory if args.memory is None else args.memory
    from ccl.cli.costs import generation, training
    from ccl.cli.fit import quiet
    from ccl.cli.own import reachable
    from ccl.cli.planned import Needs, not_here, planned_of

    logging.getLogger("lightning.fabric.utilities.seed").addFilter(quiet)
    with reachable(config_files(rest), rest):
        planned = planned_of(rest)
        with bar("Planning") as told:
            needs = Needs(told)
            lines = generation(planned, needs, args) if args.generate else training(planned, needs, args, rest)
    lines += [f"Not here: {said} ({file})" for file in config_files(rest) if (said := not_here(file))]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
