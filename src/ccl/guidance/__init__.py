"""Guidance rules and how a rule's passes become one velocity (CCL Sec. 4.3)."""

from ccl.guidance.apply import guided
from ccl.guidance.base import Guidance
from ccl.guidance.named import RULES, named, remark
from ccl.guidance.rules import UCG2, UCG3, MultiModalCFG, NoGuidance, TextCFG

__all__ = [
    "RULES",
    "UCG2",
    "UCG3",
    "Guidance",
    "MultiModalCFG",
    "NoGuidance",
    "TextCFG",
    "guided",
    "named",
    "remark",
]
