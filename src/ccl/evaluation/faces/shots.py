"""Where a film cuts, by PySceneDetect's content detector with its defaults, on pictures in memory.

T pictures of H x W pixels, N ticks.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Int, UInt8

FPS = 25.0


def shots(pictures: UInt8[np.ndarray, "t h w 3"], index: Int[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """First tick of each shot and the one after its last, where tick i shows picture index[i]; one shot if no cut."""
    import cv2
    from scenedetect import ContentDetector, FrameTimecode
    from scenedetect.scene_manager import compute_downscale_factor

    height, width = pictures.shape[1:3]
    factor = compute_downscale_factor(max(height, width))  # as its SceneManager does before it detects
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    detector = ContentDetector()
    cuts: list[int] = []
    last, small = -1, pictures[:0]
    for tick, picture in enumerate(index.tolist()):
        if picture != last:
            last, small = picture, pictures[picture]
            if factor > 1:
                small = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
            small = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        cuts += [cut.frame_num for cut in detector.process_frame(FrameTimecode(tick, fps=FPS), small)]
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(index)}), len(index)]
    return list(itertools.pairwise(edges))
