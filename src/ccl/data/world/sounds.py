"""Sounds of things: decaying sines and noise, each a few lines of numpy."""

from __future__ import annotations

import numpy as np

from ccl.data.world.script import Event


def ring(event: Event, times: np.ndarray, samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) float32 in [-1, 1]: what is heard of an event whose strokes are at `times` in seconds."""
    t = np.arange(samples) / sample_rate
    out = np.zeros(samples)
    noise = rng.standard_normal(samples)
    for number, start in enumerate(times):
        after = np.maximum(t - start, 0)
        began = (t >= start) * (1 - np.exp(-after / 0.001))
        if event.kind == "ball":  # each bounce is weaker
            gain = 0.55**number
            body = np.sin(2 * np.pi * 110 * after) * np.exp(-after / 0.06) + 0.15 * noise * np.exp(-after / 0.015)
        elif event.kind == "drum":
            gain = 1.0
            pitch = 2 * np.pi * (160 * after + 60 * 0.03 * (1 - np.exp(-after / 0.03)))
            body = np.sin(pitch) * np.exp(-after / 0.12) + 0.3 * noise * np.exp(-after / 0.03)
        else:
            gain = 0.8
            partials = ((620, 1.0, 0.6), (1240, 0.6, 0.45), (1850, 0.45, 0.3), (2790, 0.25, 0.2))
            body = sum(a * np.sin(2 * np.pi * f * after) * np.exp(-after / d) for f, a, d in partials)
        out += gain * began * body
    return (0.6 * out / max(float(np.abs(out).max()), 1e-9)).astype(np.float32)
