"""Faces followed through a film, by the greedy rule of SyncNet's pipeline, or by Verse-Bench's.

Pictures are counted at 25 a second, in ticks; a film at fewer shows some pictures twice, and each is looked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from ccl.evaluation.faces.detect import Boxes, detect
from ccl.evaluation.faces.settings import Settings, Weights, detector_name
from ccl.evaluation.faces.shots import FPS, shots
from ccl.evaluation.film import Film, Unscorable
from ccl.weights import catalogue as files

Box = tuple[float, float, float, float]  # left, top, right, bottom
Chain = list[tuple[int, Box]]  # one face: the ticks at which it was found, and where


@dataclass(frozen=True)
class Track:
    """One face through consecutive ticks of 1/25 s.

    Args:
        start: the first tick.
        boxes: left, top, right, bottom in pixels of the film, for each tick from the first on.
    """

    start: int
    boxes: Float64[np.ndarray, "n 4"]


def tracks(film: Film, settings: Settings, weights: Weights) -> list[Track]:
    """All faces that are followed long enough and are large enough, shot by shot; found once for a film.

    Raises:
        Unscorable: there is none; says with figures what there is.
        MissingWeights: the detector's file is not there.
    """
    name = detector_name(settings, weights)
    path = files.locate(name, weights.get(name))

    def follow() -> list[Track]:
        pictures = film.video
        height, width = pictures.shape[1:3]
        if max(height, width) <= settings.min_face:
            raise Unscorable(
                f"the pictures are {width} x {height}, a face of more than {settings.min_face:g} px is needed"
            )
        faces = found(film, settings, weights)
        ticks = film.indices(FPS)
        cut = ticks  # what the shots are found in
        if settings.legacy_avi and len(pictures) < len(ticks):
            # The .avi holds each picture once, so its shots are counted in pictures; the detections, made on stills
            # that ffmpeg repeats, are counted in ticks. Upstream slices the one by the other.
            cut, ticks = np.arange(len(pictures)), ticks[: len(pictures)]
        boxes: list[list[Box]] = [[(a, b, c, d) for _, a, b, c, d in faces[picture].tolist()] for picture in ticks]
        if settings.follow == "first":
            return accepted(boxes, [(0, len(boxes))], settings)
        return accepted(boxes, film.once(("shots", len(cut)), lambda: shots(pictures, cut), lasting=True), settings)

    return film.once(("tracks", settings, name, path), follow)


def found(film: Film, settings: Settings, weights: Weights) -> list[Boxes]:
    """The faces of each of a film's pictures, looked for once.

    Raises:
        Unscorable: the pictures are too small for the detector.
        MissingWeights: the detector's file is not there.
    """
    name = detector_name(settings, weights)
    path = files.locate(name, weights.get(name))
    return film.once(("faces", name, path), lambda: detect(film.video, name, path, settings.device), lasting=True)


def accepted(boxes: Sequence[Sequence[Box]], shots: Sequence[tuple[int, int]], settings: Settings) -> list[Track]:
    """The tracks to be scored, from the faces at each tick.

    Raises:
        Unscorable: there is none; says with figures what there is.
    """
    if not any(boxes):
        raise Unscorable(f"no face found in {len(boxes)} pictures")
    longest = max(end - start for start, end in shots)
    if longest < settings.min_track:
        raise Unscorable(f"the longest shot has {longest} pictures, more than {settings.min_track} are needed")
    chained = runs if settings.follow == "first" else chains
    followed = [
        chain for shot in shots if shot[1] - shot[0] >= settings.min_track for chain in chained(boxes, shot, settings)
    ]
    length = max((len(chain) for chain in followed), default=0)
    if length <= settings.min_track:
        raise Unscorable(
            f"the longest face track has {length} pictures, more than {settings.min_track} are needed; "
            f"{sum(map(bool, boxes))} of {len(boxes)} show a face"
        )
    whole = [filled(chain) for chain in followed if len(chain) > settings.min_track]
    sizes = [size(track) for track in whole]
    if max(sizes) <= settings.min_face:
        raise Unscorable(f"the largest face is {max(sizes):.0f} px wide, more than {settings.min_face:g} are needed")
    return [track for track, side in zip(whole, sizes, strict=True) if side > settings.min_face]


def chains(boxes: Sequence[Sequence[Box]], shot: tuple[int, int], settings: Settings) -> list[Chain]:
    """Every face of a shot: from its first free box on, each next one that overlaps the last enough, soon enough.

    Upstream takes a box off the list that it walks along, and so passes over the one behind it. A face passed over
    here is still free for a later chain.
    """
    free = [list(boxes[tick]) for tick in range(*shot)]
    found: list[Chain] = []
    while True:
        chain: Chain = []
        for tick, here in enumerate(free, shot[0]):
            i = 0
            while i < len(here):
                if not chain:
                    chain.append((tick, here.pop(i)))
                elif tick - chain[-1][0] > settings.max_gap:
                    break
                elif overlap(here[i], chain[-1][1]) > settings.iou:
                    chain.append((tick, here.pop(i)))
                i += 1  # also after a pop: the passing over
        if not chain:
            return found
        found.append(chain)


def runs(boxes: Sequence[Sequence[Box]], shot: tuple[int, int], settings: Settings) -> list[Chain]:
    """The best-scored face of each picture, for as long as every picture shows one, whoever's it is (Verse-Bench)."""
    found: list[Chain] = [[]]
    for tick in range(*shot):
        if boxes[tick]:
            found[-1].append((tick, boxes[tick][0]))
        elif found[-1]:
            found.append([])
    return [chain for chain in found if chain]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union else 0.0


def filled(chain: Chain) -> Track:
    """A chain with the ticks at which the face was not found, their boxes on straight lines between neighbours."""
    ticks = np.array([tick for tick, _ in chain])
    boxes = np.array([box for _, box in chain], dtype=np.float64)
    every = np.arange(ticks[0], ticks[-1] + 1)
    return Track(int(ticks[0]), np.stack([np.interp(every, ticks, side) for side in boxes.T], 1))


def size(track: Track) -> float:
    """Pixels of the mean width or the mean height, whichever is more."""
    return float(max((track.boxes[:, 2] - track.boxes[:, 0]).mean(), (track.boxes[:, 3] - track.boxes[:, 1]).mean()))
