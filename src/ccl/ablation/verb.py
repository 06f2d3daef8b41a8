"""`ccl ablate`: a matrix of trainings, samplings and scorings, here, on a cluster, or counted alone."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccl.cli.errors import UsageError, is_file
from ccl.cli.parser import SEED, WORKERS, Parser, Whole, any_text, folder_to_write, path_of, text_of

if TYPE_CHECKING:
    from ccl.ablation.jobs import Laboratory

HOME = Path("runs/ablation")


def main(argv: list[str]) -> int:
    args = parse(argv)
    from ccl.ablation.jobs import Laboratory, first_process
    from ccl.ablation.reading import read

    matrix = read(args.matrix, args.config or ()).only(seeds=args.seeds, rows=args.rows)
    laboratory = Laboratory(matrix, args.out or HOME / matrix.name, args.device)
    quiet()
    laboratory.prepare()
    if args.results:
        write_results(laboratory)
        return 0
    if args.task is not None:
        from ccl.ablation.launchers import slurm

        if (status := slurm.do(laboratory, args.task)) == 0 and first_process():
            write_results(laboratory)
        return status
    tell(laboratory, args)
    if args.dry:
        return 0
    if args.slurm is not None:
        from ccl.ablation.launchers import slurm

        say(slurm.submit(laboratory, for_a_task(args, laboratory.folder), args.slurm, at_once=args.jobs))
        return 0
    return launch(laboratory, args)


def launch(laboratory: Laboratory, args: Namespace) -> int:
    """Do all that is left, here or by Ray, and write what is known then; the exit status."""
    from ccl.ablation.jobs import LOGS
    from ccl.ablation.launchers import local
    from ccl.ablation.launchers.schedule import Schedule
    from ccl.ablation.progress import display, failures
    from ccl.files import one_writer

    logs = laboratory.folder / LOGS
    with one_writer(laboratory.folder, "wait for it, or choose another folder with -o"):
        schedule = Schedule(laboratory.jobs, laboratory.done, args.jobs or 1)
        if schedule.found:
            say(f"{len(schedule.found)} of {len(schedule.jobs)} are done already")
        try:
            with display(laboratory) as show:
                if args.ray is not None:
                    from ccl.ablation.launchers import ray

                    how = {"address": args.ray, "workers": args.jobs, "threads": args.threads}
                    ray.run(schedule, laboratory.do, **how, show=show)
                else:
                    workers = args.jobs or 1
                    local.run(schedule, laboratory.do, workers=workers, threads=args.threads, logs=logs, show=show)
                show(schedule)
        except KeyboardInterrupt:
            write_results(laboratory)
            raise
        write_results(laboratory)
    for line in failures(schedule, logs):
        sys.stderr.write(f"ccl: {line}\n")
    return 1 if schedule.failed else 0


def write_results(laboratory: Laboratory) -> None:
    """Tables, curves and the page of what is finished; of several that write them, one at a time."""
    from ccl.ablation import results
    from ccl.files import LOCK, one_writer

    with one_writer(laboratory.folder, wait=True, name=f"{LOCK}.results"):
        results.write(laboratory.matrix, laboratory.folder)
    for name in ("table.md", "report.html"):
        if (path := laboratory.folder / name).is_file():
            say(path)


def tell(laboratory: Laboratory, args: Namespace) -> None:
    """Print what is to be done and what it costs."""
    from ccl.ablation.budget import budget
    from ccl.progress import bar

    matrix = laboratory.matrix
    say(f"{matrix.name}: {matrix.about}; seeds {', '.join(map(str, matrix.seeds))}; {laboratory.folder}")
    if not args.dry and all(map(laboratory.done, laboratory.jobs)):
        return  # half a minute of counting for nothing
    with bar("Planning") as told:
        lines = list(budget(laboratory, args.threads, told).lines(args.jobs or 1))
    say("\n".join(lines))
    sys.stdout.flush()


def parse(argv: Sequence[str]) -> Namespace:
    parser = Parser(
        "ablate",
        "Train the runs of a matrix, sample and score its rows, for every seed, and write tables, curves and a page. "
        "Its cost is printed first. The same command goes on where it was stopped; what is finished is not repeated.",
        "ccl ablate configs/ablation/table2.yaml -j 2",
        "ccl ablate configs/ablation/table2.yaml --dry",
        "ccl ablate configs/ablation/table2.yaml --config configs/ablation/size/paper.yaml --dry",
        "ccl ablate configs/ablation/guidance.yaml --rows ucg2 text_cfg --seeds 0",
        """ccl ablate configs/ablation/table2.yaml --slurm="--partition=gpu --gres=gpu:1 --time=12:00:00" """.rstrip(),
    )
    parser.add_argument("matrix", type=path_of, help="its YAML")
    parser.add_argument(
        "--config",
        action="append",
        type=path_of,
        help="on top of the matrix: YAML of `ccl fit`, or an overlay of a matrix, which has a key `config`; repeatable",
    )
    parser.add_argument("--seeds", type=SEED, nargs="+", help="these in place of the matrix's")
    parser.add_argument("--rows", type=text_of, nargs="+", metavar="ROW", help="these alone, and the runs they need")
    parser.add_argument("--dry", action="store_true", help="print runs, rows and cost, and do nothing")
    parser.add_argument(
        "--results", action="store_true", help="write tables, curves and the page of what is finished, and do nothing"
    )
    parser.add_argument("-o", "--out", type=folder_to_write, help=f"folder of everything ({HOME}/NAME)")
    how = parser.add_argument_group("where it runs (here, one job at a time)")
    how.add_argument("-j", "--jobs", type=WORKERS, help="so many at a time (1; of a job array, all)")
    how.add_argument("--threads", type=Whole(1, 1024), default=1, help="of a process here (%(default)s)")
    how.add_argument("--device", type=text_of, help="of sampling and scoring: cpu or cuda (cuda where there is one)")
    where = how.add_mutually_exclusive_group()
    where.add_argument(
        "--slurm",
        type=any_text,
        nargs="?",
        const="",
        metavar="OPTIONS",
        help="submit a job array, a task for each run and seed, with these options of sbatch; the folder is shared",
    )
    where.add_argument(
        "--ray",
        type=any_text,
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="on a Ray cluster (the [ray] extra), or a local one",
    )
    how.add_argument("--task", type=Whole(0), help="do one task of the job array; what its script calls")
    args = parser.parse(argv)
    if not is_file(args.matrix):
        raise UsageError(f"there is no matrix {args.matrix}; those that ship lie in configs/ablation (`ccl init`)")
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds names one twice")
    return args


def for_a_task(args: Namespace, folder: Path) -> list[str]:
    """The command line of a task of the job array, without its number."""
    words = [str(args.matrix), "-o", str(folder), "--threads", str(args.threads)]
    words += [word for file in args.config or () for word in ("--config", str(file))]
    words += ["--seeds", *map(str, args.seeds)] if args.seeds else []
    words += ["--rows", *args.rows] if args.rows else []
    return words + (["--device", args.device] if args.device else [])


def quiet() -> None:
    """Not a line for every config that is resolved."""
    import logging

    from ccl.cli.fit import quiet as told

    logging.getLogger("lightning.fabric.utilities.seed").addFilter(told)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
