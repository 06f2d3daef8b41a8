"""Measures of clips, one backbone a file."""

from ccl.evaluation.metrics.aesthetic import Aesthetic
from ccl.evaluation.metrics.audiobox import AudioBox
from ccl.evaluation.metrics.av_align import AVAlign
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.metrics.clap import CLAP
from ccl.evaluation.metrics.clip import CLIP
from ccl.evaluation.metrics.colours import Colours
from ccl.evaluation.metrics.desync import DeSync
from ccl.evaluation.metrics.dino import DINO
from ccl.evaluation.metrics.dnsmos import DNSMOS
from ccl.evaluation.metrics.dynamics import Dynamics
from ccl.evaluation.metrics.face import Face
from ccl.evaluation.metrics.fad import FAD
from ccl.evaluation.metrics.fvd import FVD
from ccl.evaluation.metrics.imagebind import IBScore
from ccl.evaluation.metrics.imagebind_text import IBText
from ccl.evaluation.metrics.javis import Javis
from ccl.evaluation.metrics.lengths import Lengths
from ccl.evaluation.metrics.loudness import LUFS
from ccl.evaluation.metrics.mouth import Mouth
from ccl.evaluation.metrics.musiq import MUSIQ
from ccl.evaluation.metrics.onset import Onset
from ccl.evaluation.metrics.panns import KL, PANNs
from ccl.evaluation.metrics.passt import KLPaSST, PaSST
from ccl.evaluation.metrics.speaker import Speaker
from ccl.evaluation.metrics.sync import SyncNet
from ccl.evaluation.metrics.wer import WER

# In the order of tables: the paper's columns, then ours.
METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        *(AudioBox, WER, SyncNet, DeSync, IBScore, DNSMOS, AVAlign, Onset, FVD, Mouth, Colours),
        *(CLAP, CLIP, IBText, Javis),  # of text, sound and pictures in one space
        *(LUFS, Lengths, Dynamics),  # of sound and pictures by themselves, without weights
        *(Speaker, Face, DINO, Aesthetic, MUSIQ),  # who is heard, who and what is seen, and how well
        *(FAD, PANNs, KL, PaSST, KLPaSST),  # sets of sounds
    )
}

__all__ = [
    "CLAP",
    "CLIP",
    "DINO",
    "DNSMOS",
    "FAD",
    "FVD",
    "KL",
    "LUFS",
    "METRICS",
    "MUSIQ",
    "WER",
    "AVAlign",
    "Aesthetic",
    "AudioBox",
    "Colours",
    "Column",
    "DeSync",
    "Dynamics",
    "Face",
    "IBScore",
    "IBText",
    "Javis",
    "KLPaSST",
    "Lengths",
    "Measured",
    "Metric",
    "Mouth",
    "Onset",
    "PANNs",
    "PaSST",
    "Speaker",
    "SyncNet",
]
