"""Faces of a film: detection, shots, tracks, crops, and who speaks."""

from __future__ import annotations

from ccl.evaluation.faces.crops import crop
from ccl.evaluation.faces.detect import CONVENTIONS
from ccl.evaluation.faces.settings import Settings, detector_name, missing
from ccl.evaluation.faces.speaker import speaking
from ccl.evaluation.faces.track import Track, found, tracks

__all__ = ["CONVENTIONS", "Settings", "Track", "crop", "detector_name", "found", "missing", "speaking", "tracks"]
