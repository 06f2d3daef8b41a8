"""`ccl demo`: the whole way on one machine. The world's shards -> fit -> export -> generate -> the world's own measure.

Every stage is what its own verb does, and leaves files that the next begins from, so a demo that was stopped goes on
where it was: finished stages are not done again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ccl.cli.errors import UsageError
from ccl.cli.parser import STEPS, Parser, Whole, folder_to_write, path_of, text_of
from ccl.files import own_folder
from ccl.files.shipped import shipped
from ccl.spelling import counted

if TYPE_CHECKING:
    from ccl.generation import Pipeline
    from ccl.rows import Row

SETS = {"joint": "joint: pictures and sound from the prompt", "a2v": "a2v: pictures for a given sound"}
# Half of joint.yaml's steps and clips: faces, colours and words are there, in eight minutes of two cores.
ENOUGH = ("--trainer.max_steps", "200", "--data.init_args.clips", "512")
SMOKE = ("--trainer.max_steps", "12", "--data.init_args.clips", "24", "--data.init_args.batch_size", "4")


def main(argv: list[str]) -> int:
    parser = Parser(
        "demo",
        "Make the talking world, train on it, generate test clips and measure whether mouths move with their voices.",
        "ccl demo",
        "ccl demo --steps 4000 --name longer",
        "ccl demo --smoke",
    )
    parser.add_argument("--name", type=text_of, help="of the run (demo, or smoke)")
    parser.add_argument("--steps", type=Whole(), help=f"of training ({ENOUGH[1]}; of a --config its own)")
    parser.add_argument("--clips", type=Whole(4), help="test clips, half easy and half hard (32; 4 of --smoke)")
    parser.add_argument("--solver-steps", type=STEPS, help="of sampling (20; 4 of --smoke)")
    parser.add_argument(
        "--whisper", type=text_of, help="a file of Whisper's weights, to measure the word error rate as well"
    )
    parser.add_argument(
        "--config", type=path_of, action="append", help="of `ccl fit`, may repeat (configs/joint.yaml, or what ships)"
    )
    parser.add_argument(
        "--runs-dir", type=folder_to_write, help="(runs; of --smoke a temporary folder, which is gone at the end)"
    )
    parser.add_argument("--smoke", action="store_true", help="at a tiny size, about a minute")
    args = parser.parse(argv)
    configs = args.config or [own if (own := Path("configs/joint.yaml")).is_file() else shipped("configs") / own.name]
    for config in configs:
        if not config.is_file():
            raise UsageError(f"there is no config file {config}")
    if args.clips is not None and args.clips % 2:
        raise UsageError(f"--clips is {args.clips}; it must be even, half easy and half hard")
    steps = () if args.steps is None else ("--trainer.max_steps", str(args.steps))
    clips, solver_steps = (4, 4) if args.smoke else (32, 20)
    sizes = {"clips": args.clips or clips, "solver_steps": args.solver_steps or solver_steps, "whisper": args.whisper}
    if args.smoke:
        name = args.name or "smoke"
        with nullcontext(args.runs_dir) if args.runs_dir else own_folder("ccl-smoke-") as folder:
            tiny = (*SMOKE, "--data.init_args.root", f"{folder}/{name}-world", *steps)
            told(run(configs, folder, name, tiny, **sizes), kept=args.runs_dir is not None)
    else:
        size = () if args.config else ENOUGH
        told(run(configs, args.runs_dir or Path("runs"), args.name or "demo", (*size, *steps), **sizes))
    return 0


def told(folder: Path, *, kept: bool = True) -> None:
    """Say where everything lies, or how it would stay."""
    if not kept:
        sys.stdout.write(
            "\nnothing of it is kept; --runs-dir runs keeps clips, model and pages, and so does `ccl demo`\n"
        )
        return
    sys.stdout.write(f"\nclips: {folder / 'clips'}; true clips: {folder / 'testset'}; model: {folder / 'model'}\n")
    sys.stdout.write(f"pages to look at: {', '.join(str(folder / 'scores' / n / 'report.html') for n in SETS)}\n")


def run(
    configs: Sequence[Path],
    runs_dir: Path,
    name: str,
    overrides: Sequence[str],
    *,
    clips: int,
    solver_steps: int,
    whisper: str | None,
) -> Path:
    """All stages, in order; the run's folder, in which everything lies.

    Args:
        configs: of `ccl fit`, stacked.
        runs_dir: where the run's folder lies.
        name: of the run.
        overrides: options of `ccl fit` that stand over the config.
        clips: of the test split.
        solver_steps: of sampling.
        whisper: weights to measure the word error rate with.
    """
    with stage("fit"):
        folder = fit(configs, runs_dir, name, overrides)
    from ccl.generation import Pipeline
    from ccl.storage.checkpoint import last_checkpoint
    from ccl.storage.model_folder import export

    with stage("export"):
        export(last_checkpoint(folder / "checkpoints"), folder / "model")
        pipe = Pipeline.load(folder / "model")
        pipe.steps = solver_steps
    with stage(counted(clips, "true test clip")):
        rows = testset(pipe, folder / "testset", clips)
    for kind in SETS:
        given = [row.giving("audio") for row in rows] if kind == "a2v" else rows
        with stage(f"{counted(clips, 'clip')}, {kind}"):
            generate(pipe, given, folder / "clips" / kind)
    with stage("measure"):
        report(folder, pipe, rows, whisper)
    return folder


def fit(configs: Sequence[Path], runs_dir: Path, name: str, overrides: Sequence[str]) -> Path:
    """Train, go on with training, or find it finished; the run's folder."""
    from ccl.cli import fit as verb
    from ccl.storage.checkpoint import complete_checkpoints, step_of

    folder = runs_dir / name
    stack = [arg for config in configs for arg in ("--config", str(config))]
    argv = [*stack, "--name", name, "--runs_dir", str(runs_dir), "--trainer.precision", precision(), *overrides]
    done = complete_checkpoints(folder / "checkpoints")
    if done:
        wanted = verb.resolve(argv)["trainer"]["max_steps"]
        if step_of(done[-1]) >= wanted:
            sys.stdout.write(f"{folder} is trained already\n")
            return folder
    if status := verb.main([*argv, "--ckpt_path", "last"]):
        raise SystemExit(status)  # stopped by a signal, and said so
    return folder


def precision() -> str:
    """bf16-mixed where the machine has instructions for it (a tenth faster on such a CPU), float32 elsewhere."""
    import torch

    # Private names, so each may be gone in another version of torch; float32 is right everywhere.
    tests = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    cuda = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if cuda or any(test is not None and test() for test in tests) else "32-true"


def testset(pipe: Pipeline, folder: Path, clips: int) -> list[Row]:
    """Rows of test clips, half easy and half hard, whose true clips lie in `folder`; no two share their sound."""
    from ccl.data.world import World
    from ccl.files import write_whole
    from ccl.rows import Row, write_rows

    world = World(split="test", grid=pipe.grid)
    half = len(world) // 2
    rows = []
    # Clip i and clip half + i share their sound: the hard ones begin where the easy ones end.
    for index in [*range(clips // 2), *range(half + clips // 2, half + clips)]:
        path = folder / f"{world.id(index)}.mp4"
        if not path.exists():
            world.clip(index).save(path)
        line = world.line(index)
        rows.append(
            Row(
                world.id(index),
                world.prompt(index),
                subset=world.subset(index),
                speech=line.sentence,
                reference=str(path),
            )
        )
    write_whole(
        folder / "rows.jsonl",
        write_rows([{k: getattr(row, k) for k in ("id", "prompt", "subset", "speech")} for row in rows]),
    )
    return rows


def generate(pipe: Pipeline, rows: list[Row], folder: Path) -> None:
    """A clip of each row, with a bar."""
    from rich.progress import Progress

    from ccl.generation.generate import generate_files

    with Progress(transient=True) as bar:
        task = bar.add_task(folder.name)
        generate_files(
            pipe, rows, folder, batch_size=16, progress=lambda n, of, _: bar.update(task, completed=n, total=of)
        )


def report(folder: Path, pipe: Pipeline, rows: list[Row], whisper: str | None) -> None:
    """Score the clips beside their ceiling, and print the tables."""
    from rich.console import Console

    from ccl.cli.testsets import about
    from ccl.evaluation import CEILING, score
    from ccl.evaluation.metrics import WER, Colours, Metric, Mouth
    from ccl.evaluation.report import page as report
    from ccl.evaluation.tables import table
    from ccl.files import sha256
    from ccl.generation.generate import reconstruct_files

    ceiling = folder / "ceiling"
    reconstruct_files(pipe, rows, ceiling)
    metrics: list[Metric] = [Mouth(), Colours(), *([WER(whisper)] if whisper else [])]
    file = folder / "testset" / "rows.jsonl"
    said = about(f"talking world, {file.name} sha256 {sha256(file)[:16]}; {counted(len(rows), 'row')}", "cpu")
    for name, title in SETS.items():
        sys.stdout.write(f"\n{title}\n")
        sys.stdout.flush()
        out = folder / "scores" / name
        clips = {name: folder / "clips" / name, CEILING: ceiling}
        results = score(clips, rows, metrics, out, reference=CEILING, about=said)
        table.write(results, out)
        report.write(results, out / "report.html")
        table.show(results, Console())


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    sys.stdout.write(f"== {name}\n")
    sys.stdout.flush()
    start = time.monotonic()
    yield
    sys.stdout.write(f"   {name}: {time.monotonic() - start:.0f} s\n")
    sys.stdout.flush()
