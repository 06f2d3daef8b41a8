"""Text encoders: the small one trained with the model, and umT5 (ccl.text.umt5), behind one interface."""

from ccl.text.base import TextEncoder
from ccl.text.embedded import EmbeddedText

__all__ = ["EmbeddedText", "TextEncoder"]
