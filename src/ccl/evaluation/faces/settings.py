"""The conventions of finding and following faces, and which detector they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ccl.weights import catalogue as files

Weights = Mapping[str, Path | None]  # files given by hand for "s3fd", "yunet"; None or absent: looked up by name

Follow = Literal["overlap", "first"]

SMOOTHED = 13  # ticks over which a track's boxes are smoothed


@dataclass(frozen=True)
class Settings:
    """How faces are found, followed and cropped: SyncNet's pipeline, with LatentSync's shorter least track.

    Args:
        detector: "auto" takes S3FD where its file is there, else YuNet.
        min_track: a track must have more pictures than this (SyncNet 100, LatentSync 50, MOVA 20).
        max_gap: ticks of 1/25 s that a face may be missing within a track.
        min_face: pixels that the mean width or height of a track's boxes must exceed.
        iou: overlap of a box with the track's last one that must be exceeded.
        crop_scale: how much of a face's size is cropped around it.
        follow: "overlap" chains boxes shot by shot as SyncNet's pipeline does, bridges gaps and smooths the boxes;
            "first" takes every run of pictures with a face, of each its best-scored one as it is (Verse-Bench).
        legacy_avi: follow only as many ticks as the file has pictures, as pipelines do that convert to 25 fps through
            an .avi; without effect at 25 fps and more.
        device: where S3FD runs.
    """

    detector: Literal["auto", "s3fd", "yunet"] = "auto"
    min_track: int = 50
    max_gap: int = 25
    min_face: float = 100.0
    iou: float = 0.5
    crop_scale: float = 0.4
    follow: Follow = "overlap"
    legacy_avi: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.follow == "overlap" and self.min_track < SMOOTHED - 1:
            raise ValueError(
                f"min_track is {self.min_track}, at least {SMOOTHED - 1} are needed: "
                f"boxes are smoothed over {SMOOTHED} pictures"
            )


def detector_name(settings: Settings, weights: Weights) -> Literal["s3fd", "yunet"]:
    """Which detector it comes to. A file given by hand decides, even one that is not there: `missing` will say so."""
    if settings.detector != "auto":
        return settings.detector
    if weights.get("s3fd") is None:
        try:
            files.locate("s3fd")
        except files.MissingWeights:
            return "yunet"
    return "s3fd"


def missing(settings: Settings, weights: Weights) -> str:
    """What finding faces lacks here, in one sentence with the remedy; "" if nothing."""
    for module, what in (("cv2", "opencv-python-headless"), ("scenedetect", "scenedetect-headless")):
        if find_spec(module) is None:
            return f"finding faces needs the package {what}: pip install 'ccl[eval]'"
    name = detector_name(settings, weights)
    try:
        files.locate(name, weights.get(name))
    except files.MissingWeights as error:
        return str(error)
    return ""
