"""CCL: Cross-Modal Context Learning for joint audio-video generation (arXiv 2603.18600)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ccl.generation import Pipeline

__all__ = ["load"]
__version__ = "0.1.0"


def load(
    path: str | None = None, *, device: str | None = None, trust: Iterable[str] = (), revision: str | None = None
) -> Pipeline:
    """A Pipeline of a model folder, of a .ckpt in a run folder, or of OWNER/NAME[@REVISION] on the hub; without a path,
    of the shipped checkpoint.

    Args:
        path: of the model.
        device: None is the GPU where there is one.
        trust: modules whose classes its config may name beside those of ccl, as ("mine",) for `mine.Fusion`.
        revision: of a model of the hub, in the place of @REVISION: a branch, tag or commit.
    """
    from ccl.generation import Pipeline

    return Pipeline.load(path, device=device, trust=trust, revision=revision)
