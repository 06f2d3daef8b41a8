"""Speech by espeak-ng (GPL-3, the [world] extra), with the times of its phonemes.

The library keeps state between utterances (flutter, pitch, filters, noise), and no call resets all of it. So it is
loaded afresh for each utterance and unloaded after it (4 ms in all): what is said depends on its arguments alone.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from functools import cache
from math import gcd
from typing import Any, Literal

import numpy as np
from scipy.signal import resample_poly

Gender = Literal["man", "woman"]
Pitch = Literal["low", "high"]

# espeak-ng's speak_lib.h
_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT, _UTF8, _CHARACTERS = 2, 0x0001, 0x8000, 1, 1
_LIST_TERMINATED, _PHONEME = 0, 7
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7
_LOCK = threading.Lock()


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("phoneme", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Voice:
    """How something is said.

    Args:
        name: espeak-ng's name of a language and a variant.
        pitch: 0 to 99, around the variant's own.
        rate: words a minute.
    """

    name: str
    pitch: int = 50
    rate: int = 160


@dataclass(frozen=True)
class Phoneme:
    """A sound of speech: espeak-ng's mnemonic and when it is said, in seconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """An utterance: (S,) float32 samples of root mean square LEVEL, their rate in Hz, and its phonemes in order."""

    audio: np.ndarray
    sample_rate: int
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate


# Of espeak-ng's voices those that Whisper tiny.en understands best (benchmarks are in docs/log.md); pitch and rate too.
LEVEL = 0.1  # root mean square of the sounding part; peaks stay below 0.9

VOICES: dict[Gender, tuple[str, ...]] = {
    "man": ("en-us+m1", "en-us+m3", "en-gb-x-rp+m1"),
    "woman": ("en-us+f3", "en-gb-x-rp+f3"),
}
PITCHES: dict[Pitch, tuple[int, int]] = {"low": (30, 45), "high": (62, 75)}
RATES = (138, 155)


def say(text: str, voice: Voice, sample_rate: int = 16_000) -> Speech:
    """Speak a sentence; the same arguments give the same samples, whatever was said before.

    Raises:
        ImportError: espeak-ng is not installed.
        ValueError: espeak-ng knows no such voice.
    """
    raw, source_rate, starts = _synthesise(text, voice)
    loud = np.flatnonzero(np.abs(raw) > 0.002 * np.abs(raw).max())
    end = int(loud[-1]) + 1  # espeak-ng ends a sentence with silence; the beginning stays, for the times' sake
    common = gcd(sample_rate, source_rate)
    audio = resample_poly(raw[:end].astype(np.float64), sample_rate // common, source_rate // common)
    audio *= LEVEL / np.sqrt(np.mean(audio**2))
    audio *= min(1.0, 0.9 / np.abs(audio).max())
    seconds = end / source_rate
    times = [min(start, seconds) for start, _ in starts] + [seconds]
    phonemes = tuple(
        Phoneme(name, start, stop)
        for (_, name), start, stop in zip(starts, times, times[1:], strict=False)
        if stop > start
    )
    return Speech(audio.astype(np.float32), sample_rate, phonemes)


@cache
def _paths() -> tuple[str, bytes]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            "the talking world speaks with espeak-ng; install it with: pip install 'ccl[world]'"
        ) from error
    return espeakng_loader.get_library_path(), str(espeakng_loader.get_data_path()).encode()


def _synthesise(text: str, voice: Voice) -> tuple[np.ndarray, int, list[tuple[float, str]]]:
    """(S,) int16 samples, their rate, and (start in seconds, mnemonic) of each phoneme."""
    library_path, data_path = _paths()
    blocks: list[np.ndarray] = []
    starts: list[tuple[float, str]] = []

    def collect(wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _LIST_TERMINATED:
            if events[index].type == _PHONEME:
                name = bytes(events[index].phoneme).split(b"\0")[0].decode("utf-8", "ignore")
                starts.append((events[index].audio_position / 1000, name))
            index += 1
        return 0

    callback = _Callback(collect)
    with _LOCK:
        loader = ctypes.CDLL(None)
        library = ctypes.CDLL(library_path)
        try:
            rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path, _PHONEME_EVENTS | _DONT_EXIT)
            if rate <= 0:
                raise ValueError(f"espeak-ng could not read its voices in {data_path.decode()}")
            library.espeak_SetSynthCallback(callback)
            if library.espeak_SetVoiceByName(voice.name.encode()):
                raise ValueError(f"espeak-ng has no voice {voice.name!r}")
            settings = ((_RATE, voice.rate), (_VOLUME, 100), (_PITCH, voice.pitch), (_RANGE, 50), (_WORD_GAP, 0))
            for parameter, value in settings:
                library.espeak_SetParameter(parameter, value, 0)
            loader.srand(1)  # its breath and frication are drawn from the C library's generator
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            encoded = text.encode()
            library.espeak_Synth(encoded, len(encoded) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
            library.espeak_Terminate()
        finally:
            loader.dlclose(ctypes.c_void_p(library._handle))
    return np.concatenate(blocks), rate, starts
