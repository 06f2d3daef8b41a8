"""Mel power spectrograms as torchaudio.transforms.MelSpectrogram makes them by default, without torchaudio.

HTK's mel scale, triangles of height 1, power 2, frames centred on multiples of the hop, the ends reflected.
S samples, F frequencies, M mel bands, T = S // hop + 1 frames.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ccl.evaluation.dsp.banks import mel_bands


def mel_spectrogram(
    audio: Float[Tensor, "*b s"],
    *,
    sample_rate: int = 16_000,
    window: int = 400,
    hop: int = 160,
    fft: int = 1024,
    mels: int = 128,
) -> Float[Tensor, "*b m t"]:
    """Power in each mel band, of a Hann window (periodic) of `window` samples in the middle of `fft`."""
    hann = torch.hann_window(window, device=audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    spectrum = torch.stft(flat, fft, hop, window, hann, center=True, pad_mode="reflect", return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    bands = torch.tensor(mel_bands("htk", sample_rate, fft, mels), dtype=torch.float32, device=audio.device) @ power
    return bands.reshape(*audio.shape[:-1], *bands.shape[-2:])
