"""The conventions of finding and following faces, and which detector they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Weights = Mapping[str, Path | None]  # a file by hand for "s3fd", "yunet", "light_asd"; None or absent: looked up by name


@dataclass(frozen=True)
class Settings:
    """How faces are found, followed and cropped; the defaults are LatentSync's of SyncNet's pipeline.

    Args:
        detector: "auto" takes S3FD where its file is there, else YuNet.
        min_track: a track must have more pictures than this.
        max_gap: ticks of 1/25 s that a face may be missing within a track.
        min_face: pixels that the mean width or height of a track's boxes must exceed.
        iou: overlap of a box with the track's last one that must be exceeded.
        crop_scale: how much of a face's size is cropped around it.
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
    legacy_avi: bool = False
    device: str = "cpu"


def detector_name(settings: Settings, weights: Weights) -> str:
    """Which detector it comes to: "s3fd" or "yunet"."""
    raise NotImplementedError


def missing(settings: Settings, weights: Weights) -> str:
    """What finding faces lacks here, in one sentence with the remedy; "" if nothing."""
    raise NotImplementedError
