"""Face identity: whether a face is still the same person's later in a clip.

YuNet finds the faces of pictures evenly from the first to the last; each is turned so that eyes, nose and mouth lie
where recognisers were taught to look for them (InsightFace's template of 112 pixels), and becomes a point on a sphere.
The value is the mean cosine with the largest face of the first picture that has one; of several faces in a picture the
likeliest counts. Recognisers are .onnx files: SFace (OpenCV's zoo, Apache-2.0) or ArcFace (InsightFace's buffalo_l, not
for commercial use). N pictures, F faces, E numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from ccl.evaluation.faces.detect import CONVENTIONS, YUNET_CONFIDENCE, YUNET_SIDE, yunet
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.vad import open_session
from ccl.weights import catalogue as files

SIDE = 112
# Where the eye on the left of the picture, the other one, the nose and the corners of the mouth are to lie.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# What a recogniser takes of bytes, in RGB: (x - mean) / scale.
INPUTS = {"sface": (0.0, 1.0), "arcface": (127.5, 127.5)}


class Face(Metric):
    """Mean cosine of the faces with the first one; of SFace, the same person lies above 0.36 as its authors count.

    A clip in which fewer than two of the pictures show a face has no value; the row `face_seen` says what share does.

    Args:
        pictures: how many are looked at, evenly from the first to the last.
        model: the recogniser, by its name in `ccl weights list`.
        weights: files by hand of "yunet" and of the model.
    """

    name = "face"
    usual = False
    columns = (
        Column("face_identity", "Face identity", digits=3),
        Column("face_seen", "pictures with a face", "", percent=True, shown=False),
    )

    def __init__(
        self,
        *,
        pictures: int = 16,
        model: Literal["sface", "arcface"] = "sface",
        weights: Mapping[str, str | Path] | None = None,
    ) -> None:
        super().__init__()
        if pictures < 2:
            raise ValueError(f"pictures is {pictures}; it must be at least 2")
        self.pictures, self.model = pictures, model
        self.files = {name: Path(path) for name, path in (weights or {}).items()}

    def prepare(self, film: Film) -> list[UInt8[np.ndarray, "f 112 112 3"]]:
        """The faces of each picture, the largest first."""
        index = np.unique(np.linspace(0, len(film.video) - 1, self.pictures).round().astype(int))
        found = aligned(film.video[index], files.locate("yunet", self.files.get("yunet")))
        if (seen := sum(len(faces) > 0 for faces in found)) < 2:
            raise Unscorable(f"{seen} of {len(found)} pictures show a face; identity needs two")
        return found

    def measure(self, inputs: Sequence[list[UInt8[np.ndarray, "f 112 112 3"]]]) -> list[Measured]:
        return [Measured(self._identity(found)) for found in inputs]

    def _identity(self, found: list[UInt8[np.ndarray, "f 112 112 3"]]) -> dict[str, float]:
        seen = [self.embed(faces) for faces in found if len(faces)]
        alike = [float((faces @ seen[0][0]).max()) for faces in seen[1:]]
        return {"face_identity": float(np.mean(alike)), "face_seen": len(seen) / len(found)}

    def embed(self, faces: UInt8[np.ndarray, "f 112 112 3"]) -> Float[np.ndarray, "f e"]:
        """Embeddings of length 1."""
        mean, scale = INPUTS[self.model]
        planes = ((faces.astype(np.float32) - np.float32(mean)) / np.float32(scale)).transpose(0, 3, 1, 2)
        name = self.session.get_inputs()[0].name
        raw = np.concatenate([self.session.run(None, {name: plane[None]})[0] for plane in planes]).astype(np.float64)
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)

    @property
    def path(self) -> Path:
        """The recogniser's file. MissingWeights where it is not here."""
        return files.locate(self.model, self.files.get(self.model))

    @cached_property
    def session(self) -> Any:
        return open_session(self.path)

    def load(self) -> None:
        _ = self.session

    def missing(self) -> str:
        try:
            import cv2  # noqa: F401
            import onnxruntime  # noqa: F401

            _ = files.locate("yunet", self.files.get("yunet")), self.path
        except ImportError:
            return "face identity needs OpenCV and onnxruntime: pip install 'ccl[eval]'"
        except files.MissingWeights as error:
            return str(error)
        return ""

    def protocol(self) -> dict[str, Any]:
        detector = files.locate("yunet", self.files.get("yunet"))
        return {
            "model": self.model,
            "faces": f"YuNet, {CONVENTIONS['yunet']}; of several the likeliest",
            "pictures": f"{self.pictures}, evenly from the first to the last",
            "compared": "with the largest face of the first picture that has one",
            "weights": {"yunet": files.sha256(detector), self.model: files.sha256(self.path)},
        }


def aligned(pictures: UInt8[np.ndarray, "n h w 3"], path: Path) -> list[UInt8[np.ndarray, "f 112 112 3"]]:
    """The faces that YuNet finds in each picture, turned and scaled to the template, the largest first.

    Args:
        pictures: RGB.
        path: YuNet's file. ValueError where it is not.
    """
    import cv2

    height, width = pictures.shape[1:3]
    scale = min(1.0, YUNET_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    net, found = yunet(path, size, YUNET_CONFIDENCE), []
    back = np.array([width / size[0], height / size[1]])
    for picture in pictures:
        small = picture if scale == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        faces = net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        faces = np.empty((0, 15)) if faces is None else faces[np.argsort(-faces[:, 2] * faces[:, 3], kind="stable")]
        turns = [similarity(face[4:14].reshape(5, 2).astype(np.float64) * back, TEMPLATE) for face in faces]
        crops = [cv2.warpAffine(picture, turn, (SIDE, SIDE), flags=cv2.INTER_LINEAR) for turn in turns]
        found.append(np.stack(crops) if crops else np.empty((0, SIDE, SIDE, 3), np.uint8))
    return found


def similarity(points: Float[np.ndarray, "5 2"], to: Float[np.ndarray, "5 2"]) -> Float[np.ndarray, "2 3"]:
    """The turn, scale and shift that brings points nearest to others, by least squares (Umeyama 1991)."""
    centre, aim = points.mean(0), to.mean(0)
    # As complex numbers a turn and scale is one factor.
    x, y = ((p - c) @ np.array([1, 1j]) for p, c in ((points, centre), (to, aim)))
    factor = np.vdot(x, y) / np.vdot(x, x)
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([turn, aim - turn @ centre])
