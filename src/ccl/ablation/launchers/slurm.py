"""A job array of Slurm: a task for each run and seed, which trains it and then samples and scores its rows.

All tasks write in one folder, which every machine must see. Each writes what is finished by then as its last deed, so
the last one writes all. A task whose time ends saves its step and asks to be queued again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ccl.ablation.jobs import LOGS, Job, Laboratory, Stopped
from ccl.cli.errors import UsageError
from ccl.files import write_whole

SCRIPT = "slurm.sh"
GRACE = 600  # seconds before its end in which a task hears of it
TOLD = 128 + 10  # exit status of a training that USR1 has ended, saved


def tasks(laboratory: Laboratory) -> list[list[Job]]:
    """Jobs that follow on one another, in the order of the array."""
    groups: dict[tuple[str, int], list[Job]] = {}
    for job in laboratory.jobs:
        run = job.of if not job.needs and job.kind == "runs" else laboratory.matrix.row(job.of).run
        groups.setdefault((run, job.seed), []).append(job)
    return list(groups.values())


def script(laboratory: Laboratory, argv: Sequence[str], options: str, *, at_once: int | None) -> str:
    """The job array, of those tasks that are not done.

    Args:
        laboratory: prepared.
        argv: of `ccl ablate`, as each task takes it.
        options: of sbatch.
        at_once: tasks that run at a time; None for as many as the cluster gives.
    """
    left = [n for n, jobs in enumerate(tasks(laboratory)) if not all(laboratory.done(job) for job in jobs)]
    if not left:
        return ""
    array = ",".join(map(str, left)) + (f"%{at_once}" if at_once else "")
    lines = [
        f"--job-name=ccl-{laboratory.matrix.name}",
        f"--array={array}",
        f"--output={(laboratory.folder / LOGS).resolve()}/slurm-%A_%a.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=USR1@{GRACE}",
        *shlex.split(options),
    ]
    command = shlex.join([sys.executable, "-m", "ccl", "ablate", *argv])
    return "\n".join([
        "#!/bin/bash",
        *(f"#SBATCH {line}" for line in lines),
        f"cd {shlex.quote(str(Path.cwd()))}",
        f'srun {command} --task "$SLURM_ARRAY_TASK_ID"',
        "status=$?",
        f'[ "$status" -ne {TOLD} ] || scontrol requeue "$SLURM_JOB_ID"',
        'exit "$status"',
        "",
    ])  # fmt: skip


def submit(laboratory: Laboratory, argv: Sequence[str], options: str, *, at_once: int | None) -> str:
    """Write the script and hand it to sbatch, as `script`; what there is to say of it.

    Raises:
        UsageError: there is no sbatch here, or it refuses the script.
    """
    text = script(laboratory, argv, options, at_once=at_once)
    if not text:
        return "everything is done already; nothing was submitted"
    path = laboratory.folder / SCRIPT
    write_whole(path, text)
    (laboratory.folder / LOGS).mkdir(exist_ok=True)
    try:
        found = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise UsageError(f"there is no sbatch on this machine; {path} is what it would be given") from error
    except subprocess.CalledProcessError as error:
        raise UsageError(f"sbatch does not take {path}: {' '.join(error.stderr.split())[:300]}") from error
    return f"{found.stdout.strip()}; {path}"


def do(laboratory: Laboratory, number: int) -> int:
    """A task of the array; its exit status.

    Raises:
        UsageError: there is none of that number.
    """
    groups = tasks(laboratory)
    if number >= len(groups):
        raise UsageError(f"--task is {number}; this matrix has {len(groups)}, counted from 0")
    for job in groups[number]:
        try:
            laboratory.do(job)
        except Stopped as stopped:
            return stopped.status
    return 0
