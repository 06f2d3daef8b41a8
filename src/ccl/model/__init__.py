"""The network: two Wan streams and their interaction."""

from ccl.model.block import DualBlock, WanBlock
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.image import ImageDualStream, Shown
from ccl.model.load import LoadReport, load_stream, load_wan
from ccl.model.ovi import OviDualStream
from ccl.model.prepared import Prepared
from ccl.model.stream import StreamConfig

__all__ = [
    "DualBlock",
    "DualStreamTransformer",
    "ImageDualStream",
    "LoadReport",
    "OviDualStream",
    "Prepared",
    "Shown",
    "StreamConfig",
    "WanBlock",
    "load_stream",
    "load_wan",
]
