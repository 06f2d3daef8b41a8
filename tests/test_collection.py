"""The names of the tests: processes that share the suite must agree on them, and two runs must be comparable."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tests_have_the_same_names_each_time_they_are_collected() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", "tests"]
    first, again = (
        subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.splitlines()[:-1]
        for seed in ("1", "2")
    )
    assert first == again
