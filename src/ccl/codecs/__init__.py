"""Codecs between media and latents: closed forms of the embedded default, and Wan's, MMAudio's and LTX-2's networks."""

from ccl.codecs.base import AudioCodec, Codec, VideoCodec
from ccl.codecs.embedded_audio import EmbeddedAudio
from ccl.codecs.embedded_video import EmbeddedVideo
from ccl.codecs.fit import fit
from ccl.codecs.ltx2 import LTX2Audio
from ccl.codecs.mmaudio import MMAudio
from ccl.codecs.wan import WanVideo

__all__ = [
    "AudioCodec",
    "Codec",
    "EmbeddedAudio",
    "EmbeddedVideo",
    "LTX2Audio",
    "MMAudio",
    "VideoCodec",
    "WanVideo",
    "fit",
]
