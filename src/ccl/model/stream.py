"""A Wan2.1 stream, and what it has besides its blocks: patches in, time and text embeddings, head out.

Another backbone is a subclass of WanStream with ends or blocks of its own. Names of parameters are Wan2.1's.

b batch, c channels, t latent frames or audio tokens, l tokens, d width, f frames that have a time of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl import arguments
from ccl.model.block import WanBlock
from ccl.nn.attention import Backend
from ccl.nn.layers import Linear, modulate, sinusoid, wide, widely
from ccl.nn.split import Split, whole

#: What a batch brings beside latents and text, by name: tensors (b, ...), or tuples of them.
Extras = Mapping[str, Any]


class PatchEmbedding(nn.Module):
    """Latents to tokens. Weights are those of a convolution whose stride is its kernel, computed as one product.

    Args:
        channels: c.
        width: d.
        patch: latent pixels a token each way, for video (b, c, t, h, w); None for audio (b, c, t), a token a latent.
    """

    def __init__(self, channels: int, width: int, patch: int | None) -> None:
        super().__init__()
        kernel = (1,) if patch is None else (1, patch, patch)
        self.patch = patch
        self.weight = nn.Parameter(torch.empty(width, channels, *kernel))
        self.bias = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight.flatten(1))
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "b c t ..."]) -> Float[Tensor, "b l d"]:
        if self.patch is None:
            x = rearrange(x, "b c t -> b t c")
        else:
            x = rearrange(x, "b c t (h p) (w q) -> b (t h w) (c p q)", p=self.patch, q=self.patch)
        return F.linear(x.to(self.weight.dtype), self.weight.flatten(1), self.bias)


class Head(nn.Module):
    """Modulated norm and the last projection, which starts at zero."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 2, width))
        self.reset_parameters()
        self.head = Linear(width, out, init="zero")

    def reset_parameters(self) -> None:
        nn.init.normal_(self.modulation, std=self.modulation.shape[-1] ** -0.5)

    def forward(self, x: Float[Tensor, "b l d"], e: Float[Tensor, "b f d"]) -> Float[Tensor, "b l o"]:
        shift, scale = (wide(self.modulation)[:, None] + wide(e)[:, :, None]).unbind(2)
        return self.head(modulate(x, shift, scale))


class StreamEnds(nn.Module):
    """A stream without its blocks.

    Args:
        width: d.
        channels: of its latents, in and out.
        patch: as PatchEmbedding's.
        text_dim: width of the text states.
        freq_dim: numbers of the sinusoid of a time.
        embedding: latents to tokens; None is a PatchEmbedding of those channels.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        *,
        patch: int | None,
        text_dim: int,
        freq_dim: int,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.freq_dim, self.patch = freq_dim, patch
        self.patch_embedding = PatchEmbedding(channels, width, patch) if embedding is None else embedding
        self.text_embedding = nn.Sequential(
            Linear(text_dim, width, init="normal"), nn.GELU("tanh"), Linear(width, width, init="normal")
        )
        self.time_embedding = nn.Sequential(
            Linear(freq_dim, width, init="normal"), nn.SiLU(), Linear(width, width, init="normal")
        )
        self.time_projection = nn.Sequential(nn.SiLU(), Linear(width, 6 * width))
        self.head = Head(width, channels * (1 if patch is None else patch**2))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.text_embedding.parameters()).dtype

    def times(self, t: Tensor) -> tuple[Float[Tensor, "b f d"], Float[Tensor, "b f 6 d"]]:
        """(e, e0) of times in [0, 1], (b,) or (b, f), one a latent frame; float32 at least, whatever the autocast."""
        t = t[:, None] if t.ndim == 1 else t
        e = widely(self.time_embedding, sinusoid(1000 * t.double(), self.freq_dim))
        return e, rearrange(widely(self.time_projection, e), "b f (n d) -> b f n d", n=6)

    def tokens(self, x: Float[Tensor, "b c t ..."], extras: Extras) -> Float[Tensor, "b l d"]:
        """Latents to tokens."""
        return self.patch_embedding(x)

    def text(self, states: Float[Tensor, "b m n"], extras: Extras) -> Float[Tensor, "b m d"]:
        """Text states in the stream's width."""
        return self.text_embedding(states.to(self.dtype))

    def out(
        self, x: Float[Tensor, "b l d"], e: Float[Tensor, "b f d"], h: int, w: int, split: Split | None = None
    ) -> Float[Tensor, "b c t ..."]:
        """Tokens to velocities in the latents' shape, float32 at least; of a clip that is split, of all its tokens."""
        (y,) = whole(split, wide(self.head(x, e)))
        if self.patch is None:
            return rearrange(y, "b t c -> b c t")
        # Wan2.1 keeps the channel last inside a patch.
        return rearrange(y, "b (t h w) (p q c) -> b c t (h p) (w q)", h=h, w=w, p=self.patch, q=self.patch)


class WanStream:
    """A stream of a network: its size, and the modules that it is built of. It has width // head_dim heads.

    Args:
        width: d, channels of its tokens.
        ffn: inner width of its feed-forward networks.
        channels: of its latents, in and out.
        layers: blocks, where it ends before the other stream does (MOVA); None is as many as the network has.
        head_dim: of a head, where the streams' differ (LTX-2: 128 and 64); None is the network's.

    Raises:
        ValueError: one of them is no size that a network can have.

    Attributes:
        needs: what it reads of a batch's extras, always, wherever the stream takes part.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, width: int, ffn: int, channels: int, layers: int | None = None, head_dim: int | None = None
    ) -> None:
        for name, size in {"width": width, "ffn": ffn, "channels": channels}.items():
            arguments.number(f"a stream's {name}", size, 1, arguments.WIDEST, whole=True)
        if layers is not None:
            arguments.number("a stream's layers", layers, 1, arguments.DEEPEST, whole=True)
        if head_dim is not None:
            arguments.number("a stream's head_dim", head_dim, 1, arguments.WIDEST, whole=True)
        self.width, self.ffn, self.channels, self.layers, self.head_dim = width, ffn, channels, layers, head_dim

    def ends(self, *, patch: int | None, text_dim: int, freq_dim: int) -> StreamEnds:
        """Embeddings and head."""
        return StreamEnds(self.width, self.channels, patch=patch, text_dim=text_dim, freq_dim=freq_dim)

    def block(self, head_dim: int, backend: Backend) -> WanBlock:
        """One of its blocks, of heads as wide as the network has found them to be."""
        return WanBlock(self.width, self.ffn, head_dim, backend=backend)
