"""Whose fault it is: the clip's, which is a row with a reason, the metric's, or the machine's, which ends the run."""

from __future__ import annotations

import errno
import resource
import subprocess
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl import media
from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column
from ccl.files import machine_trouble
from helpers.metrics import Brittle, Loudness, by, run


def test_weights_of_something_else_stop_their_own_metric_alone(folder, tmp_path):
    class Odd(Loudness):
        name = "odd"
        columns = (Column("odd", "Odd"),)

        def protocol(self) -> dict[str, Any]:
            raise AttributeError("no checkpoint")

    rows = by(run(folder, [Odd(), Loudness()], tmp_path / "out"))
    assert rows["c0", "odd"]["reason"] == "odd cannot run: AttributeError: no checkpoint"
    assert rows["c0", "peak"]["value"] is not None


TROUBLES = {
    "no memory": MemoryError(),
    "open files": OSError(errno.EMFILE, "Too many open files"),
    "full disk": OSError(errno.ENOSPC, "No space left on device", "x.wav"),
    "threads": RuntimeError("can't start new thread"),
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes"),
    "killed": subprocess.CalledProcessError(-9, ["ffmpeg"]),
    "worker": BrokenProcessPool("A process in the process pool was terminated abruptly"),
}


@pytest.mark.parametrize("step", ["prepare", "measure", "load", "read"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_machines_trouble_ends_the_run_and_is_nobodys_result(trouble, step, folder, tmp_path, monkeypatch):
    whole = run(folder, [Loudness()], tmp_path / "whole")

    def stumble(*_: Any, **__: Any) -> Any:
        try:
            raise TROUBLES[trouble]
        except Exception as error:  # as libraries do that tell it in their own words
            raise ValueError("cannot be done") from error

    with monkeypatch.context() as patch:
        metric = Loudness()
        patch.setattr(*((Film, "read") if step == "read" else (metric, step)), stumble)
        with pytest.raises(OSError, match=r"c\d.*the same command.* goes on from here"):
            run(folder, [metric], tmp_path / "out")
        assert (tmp_path / "out/scores.jsonl").read_text() == ""
    assert run(folder, [Loudness()], tmp_path / "out").rows == whole.rows
    assert (tmp_path / "out/scores.jsonl").read_bytes() == (tmp_path / "whole/scores.jsonl").read_bytes()


def test_no_file_descriptors_left_is_no_clips_fault(folder, tmp_path):
    """As the system says it: libav opens files by itself, and has errors of its own."""
    limit, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
    try:
        with suppress(OSError):
            while True:
                held.append((folder / "c0.mp4").open("rb"))
        with pytest.raises((OSError, ValueError), match="Too many open files") as raised:
            media.read_natural(folder / "c0.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for file in held:
            file.close()
    assert machine_trouble(raised.value)


def claiming(path: Path) -> None:
    """Let the table of times of an mp4 claim 2^28 entries, for which libav asks for 2 GB."""
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 8
    data[at : at + 4] = (2**28 - 1).to_bytes(4, "big")
    path.write_bytes(bytes(data))


def test_a_clip_that_claims_all_memory_is_its_own_fault(folder, tmp_path, monkeypatch):
    claiming(folder / "c1.mp4")
    rows = by(run(folder, [Loudness()], tmp_path / "out"))
    assert "Cannot allocate memory" in rows["c1", "peak"]["reason"] and rows["c2", "peak"]["value"] is not None
    monkeypatch.setattr("ccl.files.errors.SPARE", 2**62)  # as where memory is short
    with pytest.raises(OSError, match=r"c1\.mp4: .*Cannot allocate memory.* goes on from here"):
        run(folder, [Loudness()], tmp_path / "other")


def test_what_only_sounds_like_the_machine_is_the_clips_fault(folder, tmp_path):
    class Quoting(Loudness):
        def prepare(self, film: Film) -> np.ndarray:
            raise ValueError("the prompt 'out of memory' asks for nothing")

    assert "asks for nothing" in by(run(folder, [Quoting()], tmp_path / "out"))["c0", "peak"]["reason"]


@pytest.mark.parametrize("step", ["prepare", "measure", "load"])
def test_a_package_that_is_not_here_is_the_metrics_and_is_forgotten_when_it_is(step, folder, tmp_path, monkeypatch):
    whole = run(folder, [Loudness()], tmp_path / "whole")
    lame, sound = Loudness(), Brittle()

    def lacking(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'onnxruntime'")

    monkeypatch.setattr(lame, step, lacking)
    first = run(folder, [lame, sound], tmp_path / "out")
    assert first.missing == {"loudness": "ModuleNotFoundError: No module named 'onnxruntime'"}
    assert by(first)["c0", "peak"]["value"] is None and by(first)["c0", "brittle"]["value"] is not None
    rows = by(run(folder, [Loudness()], tmp_path / "out"))
    assert {key: row for key, row in rows.items() if key[1] != "brittle"} == by(whole)
