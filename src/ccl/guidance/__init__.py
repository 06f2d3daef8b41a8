"""Guidance rules and how a rule's passes become one velocity (CCL Sec. 4.3)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ccl.guidance.base import Guidance, table
from ccl.guidance.interval import Interval
from ccl.guidance.ltx2 import LTX2Guidance
from ccl.guidance.mova import DualCFG
from ccl.guidance.named import named, rules
from ccl.guidance.ovi import OviCFG
from ccl.guidance.remarks import check_passes, occurring, remark
from ccl.guidance.rules import UCG2, UCG3, MultiModalCFG, NoGuidance, TextCFG
from ccl.guidance.schedule import Schedule
from ccl.guidance.static import SyncCFG, UCGStatic

if TYPE_CHECKING:
    from ccl.guidance.apply import guided

__all__ = [
    "UCG2",
    "UCG3",
    "DualCFG",
    "Guidance",
    "Interval",
    "LTX2Guidance",
    "MultiModalCFG",
    "NoGuidance",
    "OviCFG",
    "Schedule",
    "SyncCFG",
    "TextCFG",
    "UCGStatic",
    "check_passes",
    "guided",
    "named",
    "occurring",
    "remark",
    "rules",
    "table",
]


def __getattr__(name: str) -> Any:
    if name == "guided":  # which needs torch; the command line knows names of rules without
        return import_module("ccl.guidance.apply").guided
    raise AttributeError(f"module 'ccl.guidance' has no attribute {name!r}")
