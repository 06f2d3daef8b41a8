"""Codecs between media and latents: the closed forms of the embedded default, behind the interface of the big ones."""

from ccl.codecs.base import AudioCodec, Codec, VideoCodec
from ccl.codecs.embedded_audio import EmbeddedAudio
from ccl.codecs.embedded_video import EmbeddedVideo
from ccl.codecs.fit import fit

__all__ = ["AudioCodec", "Codec", "EmbeddedAudio", "EmbeddedVideo", "VideoCodec", "fit"]
