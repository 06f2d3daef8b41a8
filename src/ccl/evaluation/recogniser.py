"""Whisper's weights and its decoding, for many clips together; the network and its tokens are openai-whisper's.

B windows of 30 s, M mel bands, S samples at 16 kHz.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ccl.evaluation.film import Unscorable
from ccl.weights import catalogue as files

Precision = Literal["fp32", "fp16", "bf16"]
RATE = 16_000
NO_SPEECH, LIKELY = 0.6, -1.0  # whisper.transcribe drops a window above the one and not above the other


def locate(model: str, given: str | Path | None = None) -> Path:
    """Where the weights of a size lie: the file given, or `model` where it is a path, or that of a cache.

    Raises:
        MissingWeights: they are not there.
        ValueError: Whisper has no such size.
    """
    if given is None and (model.endswith(".pt") or "/" in model):
        given = model
    name, cache = f"whisper-{model}", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    own = cache / "whisper" / f"{model}.pt"  # where the package itself keeps it
    if given is None and own.is_file():
        return own
    if given is not None:
        return files.locate("whisper", given)
    if name in files.TABLE:
        return files.locate(name)
    import whisper

    if model not in whisper.available_models():
        raise ValueError(f"Whisper has no size '{model}'; it has {', '.join(whisper.available_models())}")
    fetch = f"python -c 'import whisper; whisper.load_model(\"{model}\")'"
    raise files.MissingWeights(f"the word error rate needs Whisper's weights, and {own} is not there: {fetch}")


@lru_cache
def dimensions(path: Path) -> dict[str, int]:
    """Of a file of Whisper's weights.

    Raises:
        ValueError: it is no such file.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["dims"])
    except Exception as error:  # whatever the bytes provoke
        raise ValueError(f"{path} is no file of Whisper's weights ({' '.join(str(error).split())[:120]})") from error


def language_of(lang: str, dims: dict[str, int]) -> str:
    """Whisper's code of a language that a row names: "zh" of "zh-CN".

    Raises:
        Unscorable: the network does not know it.
    """
    from whisper.tokenizer import LANGUAGES

    code = code_of(lang)
    multilingual = dims["n_vocab"] >= 51_865  # as whisper.model.Whisper tells its English-only kind
    known = list(LANGUAGES)[: dims["n_vocab"] - 51_765 - 1] if multilingual else ["en"]
    if code in known:
        return code
    if not multilingual:
        raise Unscorable(f"the speech is in '{lang}', and this Whisper knows English only")
    raise Unscorable(f"the speech is in '{lang}', a language that this Whisper does not know")


def code_of(lang: str) -> str:
    """The language alone of what a row names: "zh" of "zh-CN"; English where it names none."""
    return re.split("[-_]", lang.strip().lower())[0] or "en"


@torch.no_grad()
def transcribe(
    model: Any, sounds: Sequence[Float32[np.ndarray, " _"]], lang: str, *, precision: Precision = "fp32"
) -> list[str]:
    """Texts of several sounds (16 kHz), windows of 30 s decoded together: as `whisper.transcribe` gives them singly.

    Where the network ends a window with words it has not closed by a timestamp, the next window starts at the last
    closed one, so a clip may take more than one even below 30 s.
    """
    from whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim
    from whisper.decoding import DecodingOptions, decode
    from whisper.tokenizer import get_tokenizer

    options = DecodingOptions(language=lang, temperature=0.0, fp16=precision == "fp16")
    with quiet():
        tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages, language=lang)
    mels = [
        log_mel_spectrogram(sound, model.dims.n_mels, padding=N_SAMPLES, device=model.device)[:, :-N_FRAMES]
        for sound in sounds
    ]
    stride = N_FRAMES // model.dims.n_audio_ctx  # mel frames in a step of the timestamps
    seek, tokens = [0] * len(sounds), [list[int]() for _ in sounds]
    while pending := [i for i, mel in enumerate(mels) if seek[i] < mel.shape[1]]:
        windows = [mels[i][:, seek[i] : seek[i] + N_FRAMES] for i in pending]
        features = encode(model, torch.stack([pad_or_trim(window, N_FRAMES) for window in windows]), precision)
        for i, window, result in zip(pending, windows, decode(model, features, options), strict=True):
            silent = result.no_speech_prob > NO_SPEECH and result.avg_logprob <= LIKELY
            kept, steps = ([], None) if silent else closed(result.tokens, tokenizer.timestamp_begin)
            tokens[i] += kept
            seek[i] += window.shape[1] if steps is None else steps * stride
    return [tokenizer.decode([t for t in found if t < tokenizer.eot]).strip() for found in tokens]


def encode(model: Any, mels: Float32[Tensor, "b m 3000"], precision: Precision) -> Tensor:
    """Features of windows, which whisper.decode takes for mels; Whisper's layers follow their input's type."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    features = model.encoder(mels.to(dtype))
    return features.float() if precision == "bf16" else features  # the decoder knows no bf16


def closed(tokens: Sequence[int], first_stamp: int) -> tuple[list[int], int | None]:
    """The tokens of a window up to its last closed segment, and that segment's end in timestamp steps.

    All of them and None where the window needs no second look: a segment ends where two timestamps follow each other;
    text behind the last such pair is left for the next window, unless it is closed by a timestamp of its own.
    """
    stamps = [token >= first_stamp for token in tokens]
    pairs = [i for i in range(1, len(tokens)) if stamps[i - 1] and stamps[i]]
    if not pairs or stamps[-2:] == [False, True]:
        return list(tokens), None
    return list(tokens[: pairs[-1]]), tokens[pairs[-1] - 1] - first_stamp


@contextmanager
def quiet() -> Iterator[None]:
    """Around what the package reads from its own folder: it leaves the files to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
