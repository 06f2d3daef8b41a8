"""Clips of the talking world as one number, to be asked of another process too."""

from __future__ import annotations

import hashlib

from ccl.data.world import World
from ccl.media import Clip


def digest(clip: Clip) -> str:
    """Of its sound, pictures and prompt."""
    assert clip.audio is not None and clip.video is not None
    return hashlib.sha256(clip.audio.tobytes() + clip.video.tobytes() + clip.prompt.encode()).hexdigest()


def digest_of(number: int) -> str:
    return digest(World().clip(number))
