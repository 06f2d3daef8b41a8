"""Log-mel spectrograms and the way back: non-negative inversion of the filters, then fast Griffin-Lim.

Slaney's mel scale and area-normalised triangles, as in librosa and most vocoders. Frame i looks at samples centred on
(i + 0.5) * hop, so S = n * hop samples give exactly n frames and nothing depends on what lies outside the clip but
silence. Everything is batched, deterministic and in float32.

B clips, S samples, N frames, K frequency bins, M mel bands.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor, nn

from ccl.rng import generator


def mel_filters(bands: int, n_fft: int, sample_rate: int, top_hz: float | None = None) -> Float[Tensor, "m k"]:
    """Triangles between neighbouring mel frequencies from 0 Hz to `top_hz`, each of area 1 over Hz.

    Args:
        bands: M.
        n_fft: samples of a window; K is n_fft // 2 + 1.
        sample_rate: Hz.
        top_hz: upper edge of the last triangle; half the sample rate if not given.
    """
    from transformers.audio_utils import mel_filter_bank  # late: it takes a second

    top = sample_rate / 2 if top_hz is None else top_hz
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that narrow low bands hold no frequency, as they do elsewhere
        filters = mel_filter_bank(n_fft // 2 + 1, bands, 0.0, top, sample_rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T).float().contiguous()  # so that sums over it are taken in order


@dataclass(frozen=True)
class MelMagnitude:
    """What pretrained mel VAEs hear: Slaney bands of the magnitudes of a short-time Fourier transform.

    Args:
        sample_rate: Hz.
        n_fft: samples of a Hann window.
        hop: samples a frame.
        bands: M mel bands, from 0 Hz to `top_hz`.
        side: samples mirrored at each end of the clip, fewer than it has; N is (S + 2 side - n_fft) // hop + 1.
        top_hz: upper edge of the last band; half the sample rate if not given.
        power_floor: added to the squared magnitudes.
    """

    sample_rate: int
    n_fft: int
    hop: int
    bands: int
    side: int
    top_hz: float | None = None
    power_floor: float = 0.0

    def __call__(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b m n"]:
        """Mel magnitudes, before a logarithm."""
        padded = F.pad(audio[:, None], (self.side, self.side), mode="reflect")[:, 0]
        window = torch.hann_window(self.n_fft, device=audio.device)
        spectrum = torch.fft.rfft(padded.unfold(1, self.n_fft, self.hop) * window)
        magnitude = (torch.view_as_real(spectrum).square().sum(-1) + self.power_floor).sqrt()
        filters = mel_filters(self.bands, self.n_fft, self.sample_rate, self.top_hz).to(audio.device)
        return rearrange(magnitude @ filters.T, "b n m -> b m n")


class LogMel(nn.Module):
    """Waveform to log(mel + floor) and back.

    The floor is added, not clamped to: small errors near silence then stay small sounds, and silence comes back as
    silence.

    Args:
        sample_rate: Hz.
        n_fft: samples of a window; four times `hop`.
        hop: samples a frame.
        bands: mel bands.
        floor: added to the mel magnitudes before the logarithm; 1e-3 lies about 70 dB below a full-scale tone.
        ceiling: loudest log-mel value that is inverted; above it a generated value is cut.
        iterations: of Griffin-Lim.
        momentum: of fast Griffin-Lim (Perraudin et al. 2013); 0 is the plain algorithm.
    """

    window: Tensor
    filters: Tensor
    spread: Tensor
    gram: Tensor

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        n_fft: int = 1024,
        hop: int = 256,
        bands: int = 80,
        floor: float = 1e-3,
        ceiling: float = 2.5,
        iterations: int = 48,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        if n_fft != 4 * hop:
            raise ValueError(f"n_fft is {n_fft}; it must be four times the hop of {hop} samples")
        self.sample_rate, self.n_fft, self.hop, self.bands = sample_rate, n_fft, hop, bands
        self.floor, self.ceiling, self.iterations, self.momentum = floor, ceiling, iterations, momentum
        filters = mel_filters(bands, n_fft, sample_rate)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        # Start of the inversion: each band's magnitude spread evenly over the bins it covers.
        self.register_buffer("spread", filters.T / filters.sum(1), persistent=False)
        self.register_buffer("gram", filters.T @ filters, persistent=False)

    @property
    def settings(self) -> str:
        """Names what log-mel frames depend on; the inversion may change."""
        window = f"hann {self.n_fft}"
        return f"rate {self.sample_rate}, fft {self.n_fft}, {window}, hop {self.hop}, {self.bands} bands, {self.floor}"

    @property
    def silence(self) -> float:
        """The log-mel value of silence, the smallest there is."""
        return math.log(self.floor)

    def forward(self, audio: Float[Tensor, "b s"]) -> Float[Tensor, "b n m"]:
        """Log-mel frames of S = n * hop samples.

        Raises:
            ValueError: where S is no multiple of the hop.
        """
        if audio.shape[1] % self.hop:
            raise ValueError(f"audio has {audio.shape[1]} samples; log-mel frames need a multiple of {self.hop}")
        magnitude = self._stft(audio).abs()
        return (magnitude @ self.filters.T + self.floor).log()

    def invert(self, log_mel: Float[Tensor, "b n m"]) -> Float[Tensor, "b s"]:
        """A waveform whose log-mel frames are about these, in [-1, 1]; values out of range are cut."""
        mel = log_mel.clamp(self.silence, self.ceiling).exp() - self.floor
        return self._griffin_lim(self._magnitude(mel)).clamp(-1, 1)

    def _magnitude(self, mel: Float[Tensor, "b n m"], steps: int = 24) -> Float[Tensor, "b n k"]:
        """Non-negative least squares by multiplicative updates (Lee and Seung 2001): magnitudes never turn negative."""
        target = mel @ self.filters
        magnitude = mel @ self.spread.T
        for _ in range(steps):
            magnitude = magnitude * target / (magnitude @ self.gram).clamp(min=1e-9)
        return magnitude

    def _griffin_lim(self, magnitude: Float[Tensor, "b n k"]) -> Float[Tensor, "b s"]:
        frames, bins = magnitude.shape[1:]
        # The same phases for every clip, and for a longer clip the same to begin with.
        turns = torch.rand(frames, bins, generator=generator("griffin-lim")).to(magnitude)
        phase = torch.polar(torch.ones_like(turns), 2 * math.pi * turns).expand_as(magnitude)
        previous: Tensor | None = None
        for _ in range(self.iterations):
            rebuilt = self._stft(self._istft(magnitude * phase))
            ahead = rebuilt if previous is None else rebuilt + self.momentum * (rebuilt - previous)
            phase = ahead / ahead.abs().clamp(min=1e-9)
            previous = rebuilt
        return self._istft(magnitude * phase)

    def _stft(self, audio: Float[Tensor, "b s"]) -> Complex[Tensor, "b n k"]:
        side = (self.n_fft - self.hop) // 2
        frames = F.pad(audio, (side, side)).unfold(1, self.n_fft, self.hop)
        return torch.fft.rfft(frames * self.window)

    def _istft(self, spectrum: Complex[Tensor, "b n k"]) -> Float[Tensor, "b s"]:
        """Least-squares inverse of `_stft`: windowed overlap-add over the summed squared window."""
        frames = torch.fft.irfft(spectrum, n=self.n_fft) * self.window
        weight = self.window.square().expand(1, frames.shape[1], -1)
        return self._overlap(frames) / self._overlap(weight)

    def _overlap(self, frames: Float[Tensor, "b n w"]) -> Float[Tensor, "b s"]:
        """Add frames at their places. A window spans four hops, so this is four shifted sums."""
        parts = rearrange(frames, "b n (q hop) -> q b n hop", hop=self.hop)
        total = torch.stack([F.pad(part, (0, 0, q, 3 - q)) for q, part in enumerate(parts)]).sum(0)
        side = (self.n_fft - self.hop) // 2
        return rearrange(total, "b n hop -> b (n hop)")[:, side:-side]
