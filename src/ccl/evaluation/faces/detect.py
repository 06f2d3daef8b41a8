"""Faces in single pictures, by S3FD as SyncNet's pipeline runs it, or by OpenCV's YuNet.

T pictures of H x W pixels; each gives N boxes, best first: score, then left, top, right, bottom in its pixels.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from ccl.evaluation.exact import exact
from ccl.evaluation.film import Unscorable
from ccl.evaluation.nets import s3fd
from ccl.weights import catalogue as files

Boxes = Float64[np.ndarray, "n 5"]

S3FD_SCALE = 0.25  # of the pictures, and
S3FD_CONFIDENCE = 0.9  # least score, both as run_pipeline.py has them
S3FD_BATCH, S3FD_GPU_BATCH = 16, 64  # pictures to a forward
S3FD_OVERLAP = 0.1  # of the second suppression, upstream's over several scales of a picture; here there is one
YUNET_SIDE = 640  # pixels of the longer side, larger pictures are reduced: YuNet knows faces of 10 to 300 pixels
# Its scores are lower than S3FD's. Higher ones lose faces that are dark or wear sunglasses, and with them windows; what
# passes here and is no face (a cat's, now and then) makes no track (benchmarks/faces.py).
YUNET_CONFIDENCE = 0.7
YUNET_OVERLAP = 0.3

# What the boxes depend on beside the file, for tables.
CONVENTIONS = {
    "s3fd": f"at {S3FD_SCALE} of the size, score above {S3FD_CONFIDENCE}",
    "yunet": f"longer side at most {YUNET_SIDE}, score above {YUNET_CONFIDENCE}",
}


def detect(
    pictures: UInt8[np.ndarray, "t h w 3"], name: Literal["s3fd", "yunet"], path: Path, device: str
) -> list[Boxes]:
    """The faces of each picture.

    Raises:
        Unscorable: the pictures are too small for the detector.
        ValueError: the file is not the detector's.
    """
    return by_s3fd(pictures, path, device) if name == "s3fd" else by_yunet(pictures, path)


def by_s3fd(pictures: UInt8[np.ndarray, "t h w 3"], path: Path, device: str) -> list[Boxes]:
    """SyncNet's S3FD: at a quarter of the size, in fp32."""
    import cv2

    height, width = pictures.shape[1:3]
    if min(height, width) * S3FD_SCALE < s3fd.SMALLEST:
        least = int(s3fd.SMALLEST / S3FD_SCALE)
        raise Unscorable(f"pictures of {width} x {height} are too small for S3FD, {least} pixels a side are needed")
    net = loaded(path, path.stat().st_mtime_ns, device)
    mean = np.array(s3fd.MEAN, np.float32)
    size = np.array([1, width, height, width, height])
    found: list[Boxes] = []
    together = S3FD_BATCH if torch.device(device).type == "cpu" else S3FD_GPU_BATCH
    for start in range(0, len(pictures), together):
        small = [
            cv2.resize(picture, (0, 0), fx=S3FD_SCALE, fy=S3FD_SCALE, interpolation=cv2.INTER_LINEAR)
            for picture in pictures[start : start + together]
        ]
        x = torch.from_numpy(np.stack(small) - mean).to(device).permute(0, 3, 1, 2)  # channels last, as the weights
        with torch.inference_mode(), exact():
            everything = net(x).numpy(force=True)
        for one in everything:
            boxes = s3fd.select(one, S3FD_CONFIDENCE)
            found.append((boxes[s3fd.suppress(boxes[:, 1:], S3FD_OVERLAP)] * size).astype(np.float64))
    return found


@lru_cache(maxsize=2)
def loaded(path: Path, changed: int, device: str) -> s3fd.S3FD:
    """The network of a file, kept for the next film."""
    state = files.read(path)
    try:
        net = s3fd.S3FD.of(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.to(device)  # channels last: 1.3 times faster on a CPU


def by_yunet(pictures: UInt8[np.ndarray, "t h w 3"], path: Path, confidence: float = YUNET_CONFIDENCE) -> list[Boxes]:
    """YuNet, on pictures whose longer side is at most 640 pixels; boxes of at least this score."""
    import cv2

    height, width = pictures.shape[1:3]
    scale = min(1.0, YUNET_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    net = yunet(path, size, confidence)
    back = np.array([1, width / size[0], height / size[1], width / size[0], height / size[1]])
    found: list[Boxes] = []
    for picture in pictures:
        small = picture if scale == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        faces = net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        if faces is None:
            found.append(np.empty((0, 5)))
            continue
        faces = faces[np.argsort(-faces[:, 14], kind="stable")].astype(np.float64)
        found.append(np.column_stack([faces[:, 14], faces[:, :2], faces[:, :2] + faces[:, 2:4]]) * back)
    return found


def yunet(path: Path, size: tuple[int, int], confidence: float) -> Any:
    """OpenCV's detector for pictures of (width, height)."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # version 5 warns that it has but one target
    try:
        return cv2.FaceDetectorYN.create(str(path), "", size, confidence, YUNET_OVERLAP, s3fd.CANDIDATES)
    except cv2.error as error:
        raise ValueError(f"{path} is not YuNet's .onnx ({error.err})") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
