"""Text encoders: the small one trained with the model, and umT5, behind one interface."""

from ccl.text.base import TextEncoder
from ccl.text.embedded import EmbeddedText
from ccl.text.umt5 import UMT5

__all__ = ["UMT5", "EmbeddedText", "TextEncoder"]
