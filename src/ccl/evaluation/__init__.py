"""Scores of clips in files, whatever system made them; imports nothing of ccl but types, rows, files and media."""

from ccl.evaluation.score import score_folder
from ccl.evaluation.table import evaluate

__all__ = ["evaluate", "score_folder"]
