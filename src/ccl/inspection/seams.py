"""Whether one sees or hears where windows of a clip meet: steps across its seams against those at all other places.

Of pictures the step from one to the next. Of the sound, in the tenth of a second on each side, the sharpest bend of the
waveform, which a click is, and the largest step of its spectrum, which a change of voice is. A seam that is like any
other place has a rank of 0.5: half of the other places have a smaller step.
F pictures, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from ccl.generation.windows import FADE, pictures_of
from ccl.inspection.picture import figure_of
from ccl.media import Clip
from ccl.types import AV

SPAN = 0.005  # seconds between spectra
BESIDE = 4  # pictures that are drawn on each side of a seam
HEARD = 0.1  # of a sound's largest sample
MEASURES = {
    "pictures": "step from one picture to the next, of 255",
    "bend": "sharpest bend of the waveform",
    "spectrum": "largest step of the log spectrum",
}


@dataclass(frozen=True)
class Steps:
    """One measure, at the seams of clips and at their other places.

    Args:
        seams: at each seam.
        others: at every other place of the same clips.
        ranks: of each seam, the share of its own clip's other places where the step is smaller.
    """

    seams: Float[np.ndarray, " n"]
    others: Float[np.ndarray, " m"]
    ranks: Float[np.ndarray, " n"]

    @property
    def figures(self) -> dict[str, Any]:
        if np.isnan(self.ranks).any():
            return {"not_measured": "a clip has no other place to compare its seams with"}
        at, elsewhere = float(self.seams.mean()), float(self.others.mean())
        told = {"at_seams": at, "elsewhere": elsewhere, "times": at / max(elsewhere, 1e-12)}
        return {
            **told,
            "rank": float(self.ranks.mean()),
            "worst": float(self.ranks.max()),
            "ranks": self.ranks.tolist(),
        }

    def __str__(self) -> str:
        if why := (told := self.figures).get("not_measured"):
            return f"not measured: {why}"
        return (
            "{at_seams:.4g} at seams, {elsewhere:.4g} elsewhere, {times:.2f} times; "
            "rank {rank:.2f}, the worst {worst:.2f}"
        ).format(**told)


def steps_of(clips: Sequence[tuple[Clip, Sequence[int]]]) -> dict[str, Steps]:
    """Each measure over clips, of those whose streams are there.

    Args:
        clips: and the pictures before which their windows meet.

    Raises:
        ValueError: there is no seam, or one lies outside its clip.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in MEASURES}
    for clip, seams in clips:
        count = pictures_of(AV(clip.video, clip.audio), clip.fps, clip.sample_rate)
        if not seams:
            raise ValueError(f"{clip.id}: there are no seams to look at")
        if outside := [seam for seam in seams if not 0 < seam < count]:
            raise ValueError(f"{clip.id}: there is no picture {outside[0]} at which windows could meet; it has {count}")
        if clip.video is not None:
            steps = np.abs(np.diff(clip.video.astype(np.float32), axis=0)).mean((1, 2, 3))
            found["pictures"].append(parted(steps, np.array(seams) - 1, 1))
        if clip.audio is not None:
            at = np.array(seams) / clip.fps
            bends = np.abs(np.diff(clip.audio.astype(np.float64), 2))
            found["bend"].append(parted(*largest(bends, 1 / clip.sample_rate, at)))
            found["spectrum"].append(parted(*largest(spectral_steps(clip), SPAN, at)))
    return {name: summed(each) for name, each in found.items() if each}


def middle(clip: Clip) -> int:
    """The picture in the middle of what is heard of a clip, the first one left out.

    Raises:
        ValueError: nothing is.
    """
    heard = np.abs(clip.audio) if clip.audio is not None else np.zeros(0)
    loud = np.flatnonzero(heard > HEARD * heard.max(initial=0.0))
    if not len(loud):
        raise ValueError(f"{clip.id}: nothing is heard, in the middle of which it could be cut")
    return max(1, round((loud[0] + loud[-1]) / 2 / clip.sample_rate * clip.fps))


def cut(clip: Clip, frames: int) -> Clip:
    """The first pictures of a clip, and their sound."""
    samples = round(frames / clip.fps * clip.sample_rate)
    video, audio = (None if x is None else x[:n] for x, n in ((clip.video, frames), (clip.audio, samples)))
    return replace(clip, video=video, audio=audio, times=None)


def largest(values: np.ndarray, seconds: float, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The largest value within FADE of each place, places half of FADE apart; which places are those of seams, and how
    many on each side share something with them.

    Args:
        values: so many seconds apart.
        seconds: between two.
        at: seconds of the seams.
    """
    reach, places = round(FADE / seconds), np.arange(0, len(values) * seconds, FADE / 2)
    centres = [round(place / seconds) for place in places]
    found = np.array([values[max(0, c - reach) : c + reach + 1].max(initial=0.0) for c in centres])
    return found, np.round(at / (FADE / 2)).astype(int).clip(max=len(found) - 1), 4


def parted(values: np.ndarray, seams: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The values at seams, and those at places that are none and not so close to one."""
    near = np.zeros(len(values), bool)
    for seam in seams:
        near[max(0, seam - reach + 1) : seam + reach] = True
    return values[seams], values[~near]


def summed(each: Sequence[tuple[np.ndarray, np.ndarray]]) -> Steps:
    seams, others = (np.concatenate(one) for one in zip(*each, strict=True))
    ranks = [np.mean(other < value) for of, other in each for value in of]
    return Steps(seams.astype(np.float64), others.astype(np.float64), np.array(ranks, np.float64))


def spectral_steps(clip: Clip) -> Float[np.ndarray, " n"]:
    """Mean absolute step of the log spectrum between windows of 20 ms, 10 ms apart, every SPAN seconds."""
    assert clip.audio is not None
    hop = round(SPAN * clip.sample_rate)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(clip.audio, 2 * hop), 4 * hop)[::hop]
    spectra = np.log(np.abs(np.fft.rfft(frames * np.hanning(4 * hop))) + 1e-2)
    steps = np.zeros(len(spectra))
    steps[1:-1] = np.abs(spectra[2:] - spectra[:-2]).mean(1)
    return steps


def seams_figure(clip: Clip, seams: Sequence[int]) -> Any:
    """For each seam the pictures around it, and the waveform with the sound that gives way shaded."""
    figure = figure_of(9.0, 1.9 * len(seams))
    for part, seam in zip(np.atleast_1d(figure.subfigures(len(seams), 1)), seams, strict=True):
        left, right = part.subfigures(1, 2, width_ratios=(1.4, 1))
        if clip.video is not None:
            shown = range(max(0, seam - BESIDE), min(len(clip.video), seam + BESIDE))
            for axis, i in zip(left.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
                axis.imshow(clip.video[i]), axis.set_xticks([]), axis.set_yticks([])
                axis.set_title(str(i), fontsize=7, color="#c0009a" if i >= seam else "k")
        if clip.audio is not None:
            axis, at = right.subplots(1, 1), seam / clip.fps
            first = max(0, round((at - 0.4) * clip.sample_rate))
            heard = clip.audio[first : round((at + 0.4) * clip.sample_rate)]
            axis.plot(first / clip.sample_rate + np.arange(len(heard)) / clip.sample_rate, heard, lw=0.4)
            axis.axvspan(at - FADE, at, color="#c0009a", alpha=0.15)
            axis.axvline(at, color="#c0009a", lw=0.8)
            axis.set_xlabel("s", fontsize=7), axis.tick_params(labelsize=6)
    return figure
