"""Log mel filter banks as Kaldi makes them (compute-fbank-feats), with the settings of AST and ImageBind.

Frames of 25 ms every 10 ms, only those that fit; each loses its mean, is pre-emphasised, gets a Hann window and is
padded to a power of two; the power spectrum meets triangles that are equally wide on Kaldi's mel scale,
from 20 Hz to Nyquist, the Nyquist bin left out. No dither, no energy column. Source: Kaldi's
feat/feature-fbank.cc, feature-window.cc.

S samples, T frames, W samples of a frame, N its padded length, M mel bands, F = N / 2 + 1 frequencies.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ccl.evaluation.dsp.banks import mel_bands

FRAME_SECONDS = 0.025
SHIFT_SECONDS = 0.010
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0


def fbank(
    waveform: Float[Tensor, "*b s"], sample_rate: int = 16_000, *, num_mel_bins: int = 128
) -> Float[Tensor, "*b t m"]:
    """Log mel energies of each frame; a waveform shorter than one frame gives none (T = 0).

    Args:
        waveform: in [-1, 1]; Kaldi itself takes int16 amplitudes, ImageBind and AST do not.
        sample_rate: Hz.
        num_mel_bins: M.
    """
    width, shift = int(sample_rate * FRAME_SECONDS), int(sample_rate * SHIFT_SECONDS)
    if waveform.shape[-1] < width:
        return waveform.new_empty(*waveform.shape[:-1], 0, num_mel_bins)
    padded = 1 << (width - 1).bit_length()
    frames = waveform.unfold(-1, width, shift)
    frames = frames - frames.mean(-1, keepdim=True)
    # The sample before the first is the first itself, so that what stays of it is 1 - .97.
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    window = torch.hann_window(width, periodic=False, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * window, n=padded)
    banks = torch.tensor(mel_bands("kaldi", sample_rate, padded, num_mel_bins, LOWEST_HZ)).to(waveform)
    banks[:, -1] = 0  # the Nyquist bin, which Kaldi leaves out
    energy = spectrum.abs().square() @ banks.T
    return energy.clamp(min=torch.finfo(torch.float32).eps).log()
