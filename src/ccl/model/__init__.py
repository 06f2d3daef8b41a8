"""The network: two Wan streams and their interaction."""

from ccl.model.block import DualBlock, WanBlock
from ccl.model.dual_stream import DualStreamTransformer, Output
from ccl.model.image import Shown, WanImageStream
from ccl.model.load import LoadReport, load_stream, load_wan
from ccl.model.ovi import OviAudioStream
from ccl.model.prepared import Prepared
from ccl.model.stream import WanStream
from ccl.model.voice import Voice

__all__ = [
    "DualBlock",
    "DualStreamTransformer",
    "LoadReport",
    "Output",
    "OviAudioStream",
    "Prepared",
    "Shown",
    "Voice",
    "WanBlock",
    "WanImageStream",
    "WanStream",
    "load_stream",
    "load_wan",
]
