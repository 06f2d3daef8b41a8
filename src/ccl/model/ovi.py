"""Ovi's audio stream: a Wan2.1 stream whose latents pass two convolutions before they are tokens (arXiv 2510.01284).

Its video stream is Wan2.2-TI2V's, which needs nothing of its own. b batch, c channels, t audio tokens, d width.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl.model.stream import StreamEnds, WanStream


class ConvMLP(nn.Module):
    """w2(silu(w1(x)) w3(x)), each a convolution in time without bias.

    Args:
        width: in and out, d.
        hidden: inner width.
        kernel: taps, odd.
    """

    def __init__(self, width: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.w1 = nn.Conv1d(width, hidden, kernel, padding=kernel // 2, bias=False)
        self.w2 = nn.Conv1d(hidden, width, kernel, padding=kernel // 2, bias=False)
        self.w3 = nn.Conv1d(width, hidden, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b d t"]:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class ConvEmbedding(nn.Sequential):
    """Audio latents to tokens: a convolution, SiLU, a ConvMLP."""

    def __init__(self, channels: int, width: int, hidden: int, kernel: int) -> None:
        super().__init__(
            nn.Conv1d(channels, width, kernel, padding=kernel // 2), nn.SiLU(), ConvMLP(width, hidden, kernel)
        )

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b t d"]:  # type: ignore[override]
        return rearrange(super().forward(x.to(next(self.parameters()).dtype)), "b d t -> b t d")


class OviAudioStream(WanStream):
    """Ovi's audio stream. In its network `rescale` is 0.19676, of 31 latent frames and 121 / 24 s at 31.25 latents/s.

    Args:
        width: d, channels of its tokens; Ovi's is 3072, as its video stream's.
        ffn: inner width of its feed-forward networks; Ovi's is 14336.
        channels: of its latents; Ovi's are 20.
        layers: blocks, where it ends before the other stream does.
        head_dim: of a head, where it is not the network's.
        kernel: taps of the convolutions, odd.
        hidden: inner width of the second; None is 8 / 3 of the width, rounded up to a multiple of 256.
    """

    def __init__(
        self,
        width: int,
        ffn: int,
        channels: int,
        layers: int | None = None,
        head_dim: int | None = None,
        *,
        kernel: int = 7,
        hidden: int | None = None,
    ) -> None:
        super().__init__(width, ffn, channels, layers, head_dim)
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; it must be odd, so that a token lies where its latent does")
        self.kernel = kernel
        self.hidden = -(-(8 * width // 3) // 256) * 256 if hidden is None else hidden

    def ends(self, *, patch: int | None, text_dim: int, freq_dim: int) -> StreamEnds:
        if patch is not None:
            raise ValueError("OviAudioStream is a stream of sound; it cannot be the video stream")
        embedding = ConvEmbedding(self.channels, self.width, self.hidden, self.kernel)
        return StreamEnds(
            self.width, self.channels, patch=None, text_dim=text_dim, freq_dim=freq_dim, embedding=embedding
        )
