"""From prompts to clips, and to files of clips."""

from ccl.generation.pipeline import Pipeline

__all__ = ["Pipeline"]
