"""The demo page of `ccl serve`: what it asks becomes a row, clips come one at a time, files lie in one folder.

Everything but `page` works without gradio.
"""

from ccl.serve.asked import GIVEN, OWN, Asked, Bounds, Side
from ccl.serve.curves import curves
from ccl.serve.desk import Desk, Made
from ccl.serve.folder import Folder

__all__ = ["GIVEN", "OWN", "Asked", "Bounds", "Desk", "Folder", "Made", "Side", "curves"]
