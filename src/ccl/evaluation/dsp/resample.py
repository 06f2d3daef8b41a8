"""Another sample rate, by the windowed sinc of torchaudio.functional.resample, which the metrics' reference codes use.

Each new sample is the sum of the old ones around its time, weighted by a sinc below both Nyquist rates (times 0.99)
under a Hann window of 6 zero crossings a side. S samples, R new samples, P phases of a bank, K samples it reads.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn.functional import conv1d, pad

ZERO_CROSSINGS = 6  # lowpass_filter_width
ROLLOFF = 0.99
BANK = 256  # phases convolved together: more read zeros, fewer are many small convolutions


def resample(audio: Float32[np.ndarray, " s"], rate: int, to: int) -> Float32[np.ndarray, " r"]:
    """The same sound at `to` samples a second, ceil(to * S / rate) of them; sample 0 stays at time 0.

    Any two rates, also those that share no factor: the phases are convolved in banks, each over its own stretch.
    """
    if rate <= 0 or to <= 0:
        raise ValueError(f"sample rates are positive numbers, not {rate} and {to} Hz")
    audio = np.require(audio, np.float32, ["C", "W"])
    if rate == to or not len(audio):
        return audio
    step, phases = rate // gcd(rate, to), to // gcd(rate, to)
    length = -(-phases * len(audio) // step)
    blocks = -(-length // phases)  # a block: `step` old samples, one new one of each phase
    banks = sinc(step, phases)
    before = -banks[0][0]
    after = max(0, max(first + taps.shape[1] for first, taps in banks) + (blocks - 1) * step - len(audio))
    padded = pad(torch.from_numpy(audio), (before, after))
    new = torch.cat(
        [
            conv1d(padded[None, None, first + before :], taps[:, None], stride=step)[0, :, :blocks]
            for first, taps in banks
        ]
    )
    return new.T.flatten()[:length].numpy()


@lru_cache(maxsize=16)
def sinc(step: int, phases: int) -> list[tuple[int, Float32[Tensor, "p k"]]]:
    """The filter from `step` old samples to `phases` new ones, in banks of phases: first old sample read, and weights.

    In float64, rounded once. torchaudio's times are float32, which moves its output by about 1e-5, at odd rates 1e-4.
    """
    cutoff = min(step, phases) * ROLLOFF
    width = ceil(ZERO_CROSSINGS * step / cutoff)
    banks = []
    for start in range(0, phases, BANK):
        phase = torch.arange(start, min(start + BANK, phases))
        first = int(phase[0]) * step // phases - width
        old = torch.arange(first, int(phase[-1]) * step // phases + width + 2, dtype=torch.float64)
        t = (old / step - phase[:, None].double() / phases) * cutoff  # in zero crossings
        t = t.clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
        window = torch.cos(t * torch.pi / ZERO_CROSSINGS / 2) ** 2
        banks.append((first, (torch.sinc(t) * window * cutoff / step).float()))
    return banks
