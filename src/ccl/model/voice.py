"""A reference voice: sound that is not of the clip, whose tokens stand before those of the audio stream.

They are clean, so at time 0, and lie at the moments before the clip's first. The sound reads them in its
self-attention, the pictures do not, and no velocity comes of them. b clips, c channels, n latents of the voice,
l tokens, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ccl.types import AV, VOICE


class Voice(NamedTuple):
    """What a batch brings of it, `extras={"voice": Voice(...)}`.

    Args:
        latents: normalised, (b, c, n).
        there: which clips have one, (b,); what others hold in its place is read by nobody.
    """

    latents: Tensor
    there: Tensor


def voice_of(extras: Mapping[str, Any], sound: Tensor | None, channels: int | None) -> Voice | None:
    """The voice in a batch's extras; None where there is none, or no audio stream that could read it.

    Raises:
        ValueError: it is no Voice of as many clips, or of other channels.
    """
    voice = extras.get(VOICE)
    if voice is None or sound is None:
        return None
    if not isinstance(voice, Voice):
        raise ValueError(f"extras['{VOICE}'] is a {type(voice).__name__}; it must be a ccl.model.Voice(latents, there)")
    shapes, count = (tuple(voice.latents.shape), tuple(voice.there.shape)), len(sound)
    if voice.latents.ndim != 3 or shapes[0][:2] != (count, channels) or shapes[1] != (count,):
        raise ValueError(
            f"the voice's latents have shape {shapes[0]}, and `there` {shapes[1]}; ({count}, {channels}, n) and "
            f"({count},) are needed"
        )
    return voice


def heard(voice: Voice, length: int) -> Bool[Tensor, "b l"]:
    """Which tokens the sound may read in its self-attention, of the voice and of a clip of that many."""
    there = voice.there.bool()[:, None]
    return torch.cat([there.expand(-1, voice.latents.shape[2]), torch.ones_like(there).expand(-1, length)], 1)


def parted(x: AV[Any], before: AV[int]) -> tuple[AV[Any], AV[Any]]:
    """Tokens that stand before each stream, None where there are none, and those of the clip."""
    return AV.zip(lambda x, n: x[:, :n] if n else None, x, before), AV.zip(lambda x, n: x[:, n:], x, before)


def behind(prefix: AV[Any], x: AV[Any]) -> AV[Any]:
    """The clip's tokens behind those that stand before them."""
    return AV.zip(lambda x, first: x if first is None else torch.cat([first, x], 1), x, prefix)


def clean(e0: Float[Tensor, "b f 6 d"], own: Float[Tensor, "b 1 6 d"], n: int, length: int) -> Float[Tensor, "b l 6 d"]:
    """Projected times of all tokens: `own`, of time 0, for the n of a voice, and e0 for the clip's."""
    return torch.cat([own.expand(-1, n, -1, -1), e0.expand(-1, length, -1, -1)], 1)
