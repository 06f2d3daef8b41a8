"""IB-TV and IB-TA: how alike a prompt and the pictures, and a prompt and the sound, are in ImageBind's joint space.

Pictures and sound are cut and embedded as for IB-Score (imagebind.py), the prompt by ImageBind's text tower and CLIP's
byte pairs; JavisBench's `calc_imagebind_score`. The weights' licence, CC-BY-NC-SA 4.0, forbids commercial use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured
from ccl.evaluation.metrics.imagebind import Convention, IBScore, Inputs, network
from ccl.evaluation.metrics.prompted import NOTHING
from ccl.evaluation.nets.bpe import Tokens
from ccl.evaluation.nets.imagebind import ImageBind
from ccl.rows import Row
from ccl.weights import catalogue as weights


@dataclass(frozen=True)
class Prompted:
    """What is kept of a film, and its prompt."""

    film: Inputs
    prompt: str


class IBText(IBScore):
    """Cosine of prompt and pictures, and of prompt and sound, in ImageBind's space, higher is better.

    Args:
        convention: which pictures are seen, as of IBScore; "official" is JavisBench's.
        weights: file of imagebind_huge.pth; None looks it up.
        words: file of CLIP's byte pairs, bpe_simple_vocab_16e6.txt.gz; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
        chunk: clips to a forward; None is 8 on a CPU, else 64.
    """

    name = "ib_text"
    columns = (Column("ib_tv", "IB-TV", digits=3), Column("ib_ta", "IB-TA", digits=3))
    usual = False

    def __init__(
        self,
        *,
        convention: Convention = "official",
        weights: str | Path | None = None,
        words: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        chunk: int | None = None,
    ) -> None:
        super().__init__(convention=convention, weights=weights, device=device, precision=precision, chunk=chunk)
        self.words = words

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return "" if row.prompt.strip() else NOTHING

    def prepare(self, film: Film) -> Any:
        """Pictures and spectrograms as of IBScore, and the prompt."""
        if not film.row.prompt.strip():
            raise Unscorable(NOTHING)
        return Prompted(super().prepare(film), film.row.prompt)

    def measure(self, inputs: Sequence[Any]) -> list[Measured]:
        video, audio = self.both([one.film for one in inputs])
        text = self.read([one.prompt for one in inputs])
        seen, heard = (F.cosine_similarity(text, each, dim=-1) for each in (video, audio))
        return [Measured({"ib_tv": float(v), "ib_ta": float(a)}) for v, a in zip(seen, heard, strict=True)]

    def read(self, prompts: Sequence[str]) -> Tensor:
        """(B, E) embeddings of prompts."""
        tokens = self.tokens(prompts).to(self.place)
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.net.read(tokens).float().cpu()

    @cached_property
    def net(self) -> ImageBind:
        """The three towers with their published weights, read once. ValueError as of IBScore."""
        return network(weights.locate("imagebind", self.file), self.place, text=True)

    @cached_property
    def tokens(self) -> Tokens:
        """CLIP's byte pairs. ValueError where the file is not there, or none of them."""
        return Tokens(weights.locate("clip-bpe", self.words))

    def load(self) -> None:
        _ = self.net, self.tokens

    def find(self) -> object:
        return weights.locate("clip-bpe", self.words), super().find()

    def protocol(self) -> dict[str, Any]:
        pairs = weights.sha256(weights.locate("clip-bpe", self.words))
        return super().protocol() | {
            "score": "cosine of the prompt's embedding and the mean embedding",
            "words": f"the prompt's first 75 of CLIP's byte pairs, {pairs[:16]}",
        }
