"""`--json`, for a script to read: its option, and how what it asks for is printed."""

from __future__ import annotations

import json
import sys
from typing import Any


def add_json(parser: Any) -> None:
    """Option for JSON in the place of words; what is not JSON then goes to stderr."""
    parser.add_argument("--json", action="store_true", help="for a script to read")


def say_json(told: Any) -> None:
    """Print one value as JSON; numbers that are none are a bug of whoever tells them (ValueError)."""
    sys.stdout.write(json.dumps(told, indent=1, allow_nan=False) + "\n")
