"""Measures of single clips, one backbone a file."""

from ccl.evaluation.metrics.base import Metric
from ccl.evaluation.metrics.colours import Colours
from ccl.evaluation.metrics.mouth import Mouth
from ccl.evaluation.metrics.speech import Speech

__all__ = ["Colours", "Metric", "Mouth", "Speech"]
