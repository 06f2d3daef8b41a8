"""Measures of single clips, one backbone a file."""

from ccl.evaluation.metrics.base import Metric
from ccl.evaluation.metrics.mouth import Mouth

__all__ = ["Metric", "Mouth"]
