"""Verbs that take options instead of YAML: each parses, imports its machinery and calls it.

The work itself lives with its owner: ccl.data (shards), ccl.pipeline (generate, export), ccl.evaluation, ccl.codecs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ccl.cli.parser import Parser


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
