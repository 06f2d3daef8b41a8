"""Encoders of a first picture, for a network that is shown one beside its noisy latents (Wan2.1-I2V)."""

from ccl.image.base import ImageEncoder

__all__ = ["ImageEncoder"]
