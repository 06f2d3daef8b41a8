"""`ccl bench`: how fast this machine takes a config's steps, and what they hold, beside what `ccl plan` says."""

from __future__ import annotations

import json
import logging
import sys

from ccl.cli.errors import compose
from ccl.cli.front import config_files
from ccl.cli.parser import Number, Parser, Whole, path_of, text_of
from ccl.progress import bar

MODES = ("eager", "compile")


def main(argv: list[str]) -> int:
    parser = Parser(
        "bench",
        "Take real steps of a config of `ccl fit` on made-up latents, without weights or data: seconds by part, clips "
        "a second, share of the peak, memory beside what `ccl plan` says. Where memory is short, of fewer blocks. "
        "Other options are those of `ccl fit`.",
        "ccl bench --config configs/joint.yaml",
        "ccl bench --config configs/joint.yaml --config configs/model/wan1_3b.yaml --layers 2 -o bench.json",
        "ccl bench --config configs/joint.yaml --generate",
    )
    parser.add_argument("--steps", type=Whole(1, 10_000), default=20, help="that are counted (%(default)s)")
    parser.add_argument(
        "--modes",
        type=text_of,
        default=None,
        help=f"of {', '.join(MODES)}, with commas between (on a CPU eager, on a GPU both)",
    )
    parser.add_argument("--gpus", type=Whole(1, 64), default=1, help="of this machine, or processes on its CPU (1)")
    parser.add_argument("--layers", type=Whole(1, 10_000), help="blocks that are kept (as many as memory holds)")
    parser.add_argument("--tflops", type=Number(0, above=True), help="peak of a device (its data sheet's)")
    parser.add_argument("--generate", action="store_true", help="the evaluations of a clip instead of training")
    parser.add_argument("-o", "--out", type=path_of, help="a JSON file to keep, for `ccl plan --measured`")
    args, rest = parser.parse_known(argv)
    modes = None if args.modes is None else args.modes.split(",")
    if unknown := [mode for mode in modes or () if mode not in MODES]:
        parser.error(f"--modes has {unknown[0]!r}; there are {', '.join(MODES)}")
    if not config_files(rest):
        parser.error("it needs a config, as `ccl fit` does: --config configs/joint.yaml")
    for file in config_files(rest):
        compose(file)  # told before anything large is imported
    from ccl.bench import measure, result
    from ccl.cli.fit import quiet
    from ccl.cli.own import reachable
    from ccl.files.whole import write_whole

    logging.getLogger("lightning.fabric.utilities.seed").addFilter(quiet)
    with reachable(config_files(rest), rest), bar("Measuring") as told:
        run = measure.sampling if args.generate else measure.training
        found = run(rest, args, modes, told)
    said = (result.sampling_lines if args.generate else result.lines)(found)
    sys.stdout.write("\n".join(said) + "\n")
    if args.out is not None:
        write_whole(args.out, json.dumps(found, indent=1) + "\n")
        sys.stdout.write(f"{args.out}\n")
    return 0 if any("error" not in mode for mode in found["modes"].values()) else 1
