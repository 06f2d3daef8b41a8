"""What is drawn under a clip: its mouth's opening beside its sound's loudness, or the sound alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ccl.evaluation.metrics.mouth import correlate, envelope, found, opening
from ccl.media import Clip
from ccl.media.browser import loudness

WIDTH, HEIGHT = 400, 60
STYLE = "width:100%;height:auto;display:block"


def curves(clip: Clip) -> str:
    """An SVG over the clip's time, with a line that says what it shows; "" where there is nothing to draw.

    The mouth is the talking world's (`ccl.evaluation.metrics.mouth`): of other clips one sees the sound alone.
    """
    if clip.video is not None and found(mouth := opening(clip.video)):
        if clip.audio is None:
            return drawn([("#cd0096", line(mouth / mouth.max()))], "the mouth's opening")
        heard = envelope(clip.audio, np.arange(len(mouth) + 1) / clip.fps, clip.sample_rate)
        told = (
            f"the mouth's opening (pink), the sound's loudness (blue); they correlate by {correlate(mouth, heard):.2f}"
        )
        paths = [("#cd0096", line(mouth / mouth.max())), ("#2f7ed8", line(heard / max(float(heard.max()), 1e-9)))]
        return drawn(paths, told)
    if clip.audio is None or not len(clip.audio):
        return ""
    return drawn(
        [("#2f7ed8", wave(loudness(clip.audio, float(len(clip.audio)))))], "the sound's waveform; no mouth was found"
    )


def line(values: Float[np.ndarray, " n"]) -> str:
    """A path through values in 0..1, from left to right."""
    x = np.linspace(0, WIDTH, len(values))
    y = HEIGHT - 2 - (HEIGHT - 4) * np.clip(values, 0, 1)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def wave(peaks: Float[np.ndarray, " n"]) -> str:
    """A path of upright strokes about the middle, each as long as a peak in 0..1."""
    x = (np.arange(len(peaks)) + 0.5) * WIDTH / len(peaks)
    half = (HEIGHT - 4) / 2 * np.clip(peaks, 0.01, 1)
    return "".join(f"M{a:.1f} {HEIGHT / 2 - h:.1f}v{2 * h:.1f}" for a, h in zip(x, half, strict=True))


def drawn(paths: list[tuple[str, str]], told: str) -> str:
    """Paths by their colours, in one picture."""
    inner = "".join(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>' for colour, path in paths)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}" style="{STYLE}"'
    return f"<svg {box}>{inner}</svg><small>{told}</small>"
