"""Scores of clips in files, whatever system made them; imports nothing of ccl but types, rows, files and media.

Each metric is a torchmetrics.Metric that takes paths or clips: `SyncNet()(["a.mp4", "b.mp4"])`.
"""

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics import (
    CLAP,
    CLIP,
    DINO,
    DNSMOS,
    FAD,
    FVD,
    KL,
    LUFS,
    METRICS,
    WER,
    Aesthetic,
    AudioBox,
    AVAlign,
    Colours,
    Column,
    DeSync,
    Dynamics,
    Face,
    IBScore,
    IBText,
    Javis,
    Lengths,
    Measured,
    Metric,
    Mouth,
    Onset,
    PANNs,
    Speaker,
    SyncNet,
)
from ccl.evaluation.report import page as report
from ccl.evaluation.score import score
from ccl.evaluation.tables import table
from ccl.evaluation.tables.results import CEILING, Results
from ccl.rows import Row

__all__ = [
    "CEILING",
    "CLAP",
    "CLIP",
    "DINO",
    "DNSMOS",
    "FAD",
    "FVD",
    "KL",
    "LUFS",
    "METRICS",
    "WER",
    "AVAlign",
    "Aesthetic",
    "AudioBox",
    "Colours",
    "Column",
    "DeSync",
    "Dynamics",
    "Face",
    "Film",
    "IBScore",
    "IBText",
    "Javis",
    "Lengths",
    "Measured",
    "Metric",
    "Mouth",
    "Onset",
    "PANNs",
    "Results",
    "Row",
    "Speaker",
    "SyncNet",
    "Unscorable",
    "report",
    "score",
    "table",
]
