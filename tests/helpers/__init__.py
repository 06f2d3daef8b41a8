"""What many tests share: tiny networks, clips and encoders, trainings in a process of their own."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the repository
TESTS = ROOT / "tests"
