"""Does anyone speak? silero-vad, a small recurrent network that judges 32 ms of sound after 32 ms.

Recognisers write a sentence for silence and music too; a metric that asks here first can call such a sentence nothing.
The rule from probabilities to speech is that of silero's own `get_speech_timestamps` with its defaults: speech begins
at 0.5, ends where it stays below 0.35 for 100 ms, and counts if longer than 250 ms. S samples at 16 kHz, N windows.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from ccl.weights import catalogue as files

RATE = 16_000
WINDOW, CONTEXT = 512, 64  # samples: judged, and of the window before, which the network reads first
ENTER, LEAVE = 0.5, 0.35
PAUSE, LEAST = 0.1, 0.25  # seconds


def probabilities(session: Any, sound: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, " n"]:
    """That someone speaks, for each window; the last one is filled up with zeros.

    Args:
        session: of onnxruntime, with silero_vad.onnx (versions 5 and 6).
        sound: at 16 kHz.
    """
    count = -(-len(sound) // WINDOW)
    padded = np.zeros(CONTEXT + count * WINDOW, np.float32)
    padded[CONTEXT : CONTEXT + len(sound)] = sound
    state, rate = np.zeros((2, 1, 128), np.float32), np.array(RATE, np.int64)
    speech = np.empty(count, np.float32)
    for i in range(count):
        piece = padded[None, i * WINDOW : (i + 1) * WINDOW + CONTEXT]
        probability, state = session.run(None, {"input": piece, "state": state, "sr": rate})
        speech[i] = probability[0, 0]
    return speech


def spans(speech: Float[np.ndarray, " n"], samples: int) -> list[tuple[int, int]]:
    """Stretches of speech as (start, end) samples of a sound of this length."""
    found: list[tuple[int, int]] = []
    start = pause = -1  # where speech began, and where it may have ended
    for i, probability in enumerate(speech):
        now = i * WINDOW
        if probability >= ENTER:
            start, pause = (now if start < 0 else start), -1
        elif probability < LEAVE and start >= 0:
            pause = now if pause < 0 else pause
            if now - pause >= PAUSE * RATE:
                found.append((start, pause))
                start = pause = -1
    if start >= 0:
        found.append((start, samples))
    return [(begin, end) for begin, end in found if end - begin > LEAST * RATE]


class VAD:
    """silero-vad from its onnx file, on the CPU, where it takes about a hundredth of real time.

    Args:
        weights: silero_vad.onnx; None looks it up among the fetched weights. The package silero-vad is not used.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        self.weights = weights

    def missing(self) -> str:
        """What it lacks to run here, in one sentence; "" if nothing."""
        try:
            import onnxruntime  # noqa: F401

            files.locate("silero_vad", self.weights)
        except ImportError:
            return "the silence gate needs onnxruntime: pip install 'ccl[eval]'"
        except files.MissingWeights as error:
            return str(error)
        return ""

    def share(self, sound: Float32[np.ndarray, " s"]) -> float:
        """Part of the sound (16 kHz) that is speech, 0 to 1."""
        if not len(sound):
            return 0.0
        found = spans(probabilities(self.session, sound), len(sound))
        return sum(end - start for start, end in found) / len(sound)

    def protocol(self) -> dict[str, Any]:
        """Everything a verdict depends on."""
        path = files.locate("silero_vad", self.weights)
        return {"network": "silero-vad", "enter": ENTER, "leave": LEAVE, "weights": files.sha256(path)}

    @cached_property
    def session(self) -> Any:
        return open_session(files.locate("silero_vad", self.weights))


def open_session(path: Path, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU; one thread, for these networks are too small to share.

    Raises:
        ValueError: the file is no model that onnxruntime reads.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes, of which none is public
        raise ValueError(f"{path} is damaged, or no .onnx model") from error
