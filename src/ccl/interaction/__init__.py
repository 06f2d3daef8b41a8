"""How the two streams see each other: one class a method, one interaction a block."""

from ccl.interaction.align import TARP, Alignment, Global
from ccl.interaction.avlink import AVLink
from ccl.interaction.base import Interaction, Seen, Site, Update
from ccl.interaction.cca import CCA
from ccl.interaction.framewise import Framewise
from ccl.interaction.gate import Gate
from ccl.interaction.harmony import Harmony
from ccl.interaction.ltx2 import LTX2Attention
from ccl.interaction.mova import MOVABridge
from ccl.interaction.none import NoInteraction
from ccl.interaction.ovi import OviFusion
from ccl.interaction.uniavgen import UniAVGen

__all__ = [
    "CCA",
    "TARP",
    "AVLink",
    "Alignment",
    "Framewise",
    "Gate",
    "Global",
    "Harmony",
    "Interaction",
    "LTX2Attention",
    "MOVABridge",
    "NoInteraction",
    "OviFusion",
    "Seen",
    "Site",
    "UniAVGen",
    "Update",
]
