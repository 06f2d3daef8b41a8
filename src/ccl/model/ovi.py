"""Ovi's audio stream: a Wan2.1 stream whose latents pass two convolutions before they are tokens (arXiv 2510.01284).

Its video stream is Wan2.2-TI2V's, which needs nothing of its own. b batch, c channels, t audio tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl.interaction.align import Rescale
from ccl.interaction.base import Interaction, Site
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.stream import StreamConfig, StreamEnds
from ccl.nn.attention import Backend
from ccl.types import Stream


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


class OviDualStream(DualStreamTransformer):
    """A DualStreamTransformer whose audio stream is Ovi's; the interaction is ours, Ovi's fusion is not taken over.

    Args:
        video: size of the video stream; Ovi's is 3072 wide, 14336 inside, of 48 channels.
        audio: size of the audio stream; Ovi's is as wide, of 20 channels.
        layers: blocks, the same number in both; Ovi's are 30.
        head_dim: of a head, the same in both.
        text_dim: width of the text states.
        interaction: makes the interaction of a block from where it stands; a stream alone needs none.
        freq_dim: numbers of the sinusoid of a time.
        patch: latent pixels a video token, each way.
        attention: which kernel; see `ccl.nn.attention`.
        checkpointing: recompute each block in the backward pass, to save memory.
        rescale: of the audio positions; Ovi's factor is that of 31 latent frames and 121 / 24 s at 31.25 latents/s.
        kernel: taps of the convolutions, odd.
        hidden: inner width of the second; None is 8 / 3 of the width, rounded up to a multiple of 256.
    """

    def __init__(
        self,
        *,
        video: StreamConfig | None = None,
        audio: StreamConfig | None = None,
        layers: int,
        head_dim: int,
        text_dim: int,
        interaction: Callable[[Site], Interaction] | None = None,
        freq_dim: int = 256,
        patch: int = 2,
        attention: Backend = "auto",
        checkpointing: bool = False,
        rescale: Rescale | float = 0.19676,
        kernel: int = 7,
        hidden: int | None = None,
    ) -> None:
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; it must be odd, so that a token lies where its latent does")
        self.kernel, self.hidden = kernel, hidden  # the parts below are made by the base's constructor
        super().__init__(
            video=video,
            audio=audio,
            layers=layers,
            head_dim=head_dim,
            text_dim=text_dim,
            interaction=interaction,
            freq_dim=freq_dim,
            patch=patch,
            attention=attention,
            checkpointing=checkpointing,
            rescale=rescale,
        )

    def stream_ends(self, config: StreamConfig, stream: Stream, *, text_dim: int, freq_dim: int) -> StreamEnds:
        if stream == "video":
            return super().stream_ends(config, stream, text_dim=text_dim, freq_dim=freq_dim)
        hidden = -(-(8 * config.width // 3) // 256) * 256 if self.hidden is None else self.hidden
        embedding = ConvEmbedding(config.channels, config.width, hidden, self.kernel)
        return StreamEnds(config, patch=None, text_dim=text_dim, freq_dim=freq_dim, embedding=embedding)
