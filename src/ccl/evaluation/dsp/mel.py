"""Mel power spectrograms as torchaudio.transforms.MelSpectrogram makes them by default, without torchaudio.

HTK's mel scale, triangles of height 1, power 2, frames centred on multiples of the hop, the ends reflected.
S samples, F frequencies, M mel bands, T = S // hop + 1 frames.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


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
    bands = mel_bands(fft // 2 + 1, mels, sample_rate).to(audio.device) @ power
    return bands.reshape(*audio.shape[:-1], *bands.shape[-2:])


@lru_cache(maxsize=8)
def mel_bands(frequencies: int, mels: int, sample_rate: int) -> Float[Tensor, "m f"]:
    """Weights of `mels` triangles from 0 to half the sample rate, their corners evenly spaced in mel."""
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700, dtype=torch.float64))
    corners = 700 * (10 ** (torch.linspace(0, 1, mels + 2, dtype=torch.float64) * top / 2595) - 1)
    hertz = torch.linspace(0, sample_rate / 2, frequencies, dtype=torch.float64)
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return torch.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)).clamp(min=0).float()
