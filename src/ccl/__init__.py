"""CCL: Cross-Modal Context Learning for joint audio-video generation (arXiv 2603.18600)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccl.pipeline import Pipeline

__all__ = ["load"]
__version__ = "0.1.0"


def load(path: str | None = None, *, device: str | None = None) -> Pipeline:
    """A Pipeline of a model folder or of a .ckpt in a run folder; without a path, of the shipped checkpoint."""
    from ccl.pipeline import Pipeline

    return Pipeline.load(path, device=device)
