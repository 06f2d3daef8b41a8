"""YuNet's threshold: faces found and false ones by score, on clips as they are, dimmed, blurred, noisy and covered.

`python benchmarks/faces.py CLIPS --faces a.mp4 b.mp4=2 --yunet FILE`: of the clips named, each picture shows so many
faces (one where no number stands), found at a score of 0.8 as the clip is; all other clips show none. Whatever overlaps
no such face is false. A variant spoils the picture, not where the face is. Textures and drawings of the talking world
count among what shows no face. A false face of one picture is no harm where it makes no track, so the last lines say of
all pictures of the clips without a face how many show one, and how many tracks of more than 50 pictures come of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from ccl.data.world import World
from ccl.evaluation.faces import Settings
from ccl.evaluation.faces.detect import Boxes, by_yunet
from ccl.evaluation.faces.track import accepted, overlap
from ccl.evaluation.film import Film, Unscorable
from ccl.rng import seed_of

THRESHOLDS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
LEAST, SURE = 0.3, 0.8
PICTURES = 10  # of a clip
Picture = UInt8[np.ndarray, "h w 3"]


def dim(picture: Picture, share: float, noise: float = 0.0) -> Picture:
    """A picture with less light, and the noise of a sensor."""
    grain = np.random.default_rng(seed_of("faces", share, noise)).normal(0, noise, picture.shape) if noise else 0
    return np.clip(picture * share + grain, 0, 255).astype(np.uint8)


def blurred(picture: Picture, share: float) -> Picture:
    """Out of focus, by a share of its height."""
    return cv2.GaussianBlur(picture, (0, 0), share * picture.shape[0])


def covered(picture: Picture, boxes: Boxes, top: float, bottom: float, shade: int) -> Picture:
    """A bar over part of each face; without faces, of one in the middle."""
    height, width = picture.shape[:2]
    picture = picture.copy()
    for _, x0, y0, x1, y1 in boxes if len(boxes) else [(1, width * 0.4, height * 0.3, width * 0.6, height * 0.6)]:
        rows = slice(max(0, int(y0 + top * (y1 - y0))), max(0, int(y0 + bottom * (y1 - y0))))
        picture[rows, max(0, int(x0)) : max(0, int(x1))] = shade
    return picture


def pressed(picture: Picture, quality: int) -> Picture:
    """As a JPEG of this quality."""
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


VARIANTS: dict[str, Callable[[Picture, Boxes], Picture]] = {
    "as it is": lambda picture, _: picture,
    "dim, 1/4": lambda picture, _: dim(picture, 0.25),
    "dark, 1/10, noise 4": lambda picture, _: dim(picture, 0.1, 4),
    "noise 30": lambda picture, _: dim(picture, 1, 30),
    "blur 1 %": lambda picture, _: blurred(picture, 0.01),
    "JPEG 10": lambda picture, _: pressed(picture, 10),
    "sunglasses": lambda picture, boxes: covered(picture, boxes, 0.22, 0.45, 15),
    "dim, sunglasses": lambda picture, boxes: dim(covered(picture, boxes, 0.22, 0.45, 15), 0.25),
    "mouth covered": lambda picture, boxes: covered(picture, boxes, 0.6, 1.0, 200),
}


def textures() -> Iterator[Picture]:
    """Pictures of nothing: noise of several sizes, stripes, checks, slopes."""
    for n in range(PICTURES):
        generator = np.random.default_rng(seed_of("textures", n))
        coarse = generator.integers(0, 256, (4 << n % 5, 4 << n % 5, 3)).astype(np.uint8)
        yield cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC if n % 2 else cv2.INTER_NEAREST)
        y, x = np.mgrid[:480, :640]
        wave = np.sin(x / (3 + n)) * np.cos(y / (5 + 2 * n)) if n % 2 else ((x // (8 + 4 * n) + y // (8 + 4 * n)) % 2)
        yield np.repeat(np.clip(127 + 120 * wave, 0, 255).astype(np.uint8)[..., None], 3, 2)


def drawings() -> Iterator[Picture]:
    """The talking world's people, as they are and four times as large."""
    world = World(split="test")
    for index in range(PICTURES):
        picture = world.clip(index).video[0]
        yield picture
        yield cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)


def some(film: Film) -> UInt8[np.ndarray, "t h w 3"]:
    return film.video[np.linspace(0, len(film.video) - 1, PICTURES).astype(int)]


def count(found: Boxes, faces: Boxes, threshold: float) -> tuple[int, int]:
    """Faces that are found, and boxes that are none."""
    boxes = [tuple(box) for score, *box in found.tolist() if score >= threshold]
    hit = [any(overlap(box, tuple(face[1:])) > 0.4 for box in boxes) for face in faces.tolist()]
    false = [not any(overlap(box, tuple(face[1:])) > 0.2 for face in faces.tolist()) for box in boxes]
    return sum(hit), sum(false)


def lasting(found: list[Boxes], threshold: float) -> str:
    """Pictures with a box, and face tracks that would be scored, were faces of 20 pixels large enough."""
    listed = [[(x, y, w, h) for score, x, y, w, h in here.tolist() if score >= threshold] for here in found]
    try:
        tracks = len(accepted(listed, [(0, len(listed))], Settings(min_face=20)))
    except Unscorable:
        tracks = 0
    return f"{sum(map(bool, listed))} / {tracks}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", type=Path)
    parser.add_argument("--faces", nargs="+", default=[], help="NAME or NAME=COUNT")
    parser.add_argument("--yunet", type=Path, required=True)
    args = parser.parse_args()
    many = {name.partition("=")[0]: int(name.partition("=")[2] or 1) for name in args.faces}
    print(f"{'':34}" + "".join(f"{threshold:>12g}" for threshold in THRESHOLDS))
    films = {path.name: Film.read(path) for path in sorted(args.clips.glob("*.mp4"))}
    free = {name: film for name, film in films.items() if name not in many}
    truth = {}
    for name, film in films.items():
        sure = by_yunet(some(film), args.yunet, SURE) if name in many else [np.empty((0, 5))] * PICTURES
        truth[name] = [boxes[: many.get(name, 0)] for boxes in sure]
    for variant, spoil in VARIANTS.items():
        of, hits, false, nothing = 0, np.zeros(len(THRESHOLDS), int), *np.zeros((2, len(THRESHOLDS)), int)
        for name, film in films.items():
            pictures = some(film)
            spoilt = np.stack([spoil(picture, boxes) for picture, boxes in zip(pictures, truth[name], strict=True)])
            for found, faces in zip(by_yunet(spoilt, args.yunet, LEAST), truth[name], strict=True):
                of += len(faces)
                for i, threshold in enumerate(THRESHOLDS):
                    hit, wrong = count(found, faces, threshold)
                    hits[i] += hit
                    (false if name in many else nothing)[i] += wrong
        print(f"{variant + f', of {of} faces':34}" + "".join(f"{hit:>12}" for hit in hits))
        print(
            f"{'  false beside faces / without':34}"
            + "".join(f"{f'{a} / {b}':>12}" for a, b in zip(false, nothing, strict=True))
        )
    for what, made in (("textures", textures()), ("drawings", drawings())):
        found = [by_yunet(picture[None], args.yunet, LEAST)[0] for picture in made]
        rows = [sum(count(boxes, np.empty((0, 5)), threshold)[1] for boxes in found) for threshold in THRESHOLDS]
        print(f"{f'{what}, {len(found)} pictures: false':34}" + "".join(f"{n:>12}" for n in rows))
    for name, film in free.items():
        everything = by_yunet(film.video, args.yunet, LEAST)
        cells = [lasting(everything, threshold) for threshold in THRESHOLDS]
        print(f"{f'{name[:20]}, {len(film.video)} pictures':34}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
