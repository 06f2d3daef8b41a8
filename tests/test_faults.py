"""A small campaign of kills, full disks and damaged inputs, in a process of its own; `make faults` is the large one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("faults")


@pytest.mark.timeout(300)
def test_what_is_killed_goes_on_and_what_is_damaged_is_used_or_named() -> None:
    command = [sys.executable, CAMPAIGN, "--seed", "0", "--rounds", "1", "--mutants", "1", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = re.search(r"(\d+) kills, (\d+) full disks, (\d+) damaged inputs, 0 faults", done.stdout)
    assert counts is not None and int(counts[1]) >= 5 and int(counts[2]) >= 1 and int(counts[3]) >= 20, done.stdout
