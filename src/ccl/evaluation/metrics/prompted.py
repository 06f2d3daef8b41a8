"""What CLAP and CLIP share: a network of transformers, of which one tower reads the prompt of a row.

B prompts, E numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float32
from torch import Tensor

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Metric
from ccl.evaluation.nets.pretrained import Pretrained
from ccl.rows import Row
from ccl.weights import catalogue as weights

WORDS = 77  # tokens of a prompt: CLIP's text tower has positions for no more, and laion_clap reads no more
NOTHING = "the row has no prompt to compare it with"


class Prompted(Metric):
    """A metric that compares a clip with its row's prompt.

    Class attributes: `title`, of the network; `model` and `reader`, the classes of transformers that are it and its
    tokenizer.

    Args:
        checkpoint: which of the published ones, by its name in `ccl weights list`.
        weights: its folder, or a file in it, whatever `checkpoint` says; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    title: str
    model: str
    reader: str
    usual = False

    def __init__(
        self, checkpoint: str, weights: str | Path | None, device: str, precision: Literal["fp32", "bf16"]
    ) -> None:
        super().__init__()
        self.batch_for(device)
        self.checkpoint, self.given, self.place, self.precision = checkpoint, weights, torch.device(device), precision

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return "" if row.prompt.strip() else NOTHING

    def prompt(self, film: Film) -> str:
        """The row's. Unscorable where it has none."""
        if not film.row.prompt.strip():
            raise Unscorable(NOTHING)
        return film.row.prompt

    def read(self, prompts: Sequence[str]) -> Float32[Tensor, "b e"]:
        """Embeddings of prompts."""
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=WORDS, return_tensors="pt")
        tokens = {name: tokens[name].to(self.place) for name in ("input_ids", "attention_mask")}
        return self.net.get_text_features(**tokens).pooler_output.float().cpu()

    @property
    def source(self) -> Pretrained:
        """Folder and file. MissingWeights, or ValueError where they hold no weights."""
        return Pretrained.find(self.checkpoint, self.given)

    @cached_property
    def net(self) -> Any:
        import transformers

        with torch.inference_mode(False):
            return self.source.network(getattr(transformers, self.model), self.title).to(self.place)

    @cached_property
    def tokenizer(self) -> Any:
        import transformers

        return self.source.tokenizer(getattr(transformers, self.reader), self.title)

    def load(self) -> None:
        _ = self.net, self.tokenizer

    def find(self) -> object:
        return self.source

    def protocol(self) -> dict[str, Any]:
        whose = self.checkpoint if self.given is None else self.source.folder.name
        return {
            "model": f"transformers' {self.model}, {whose}",
            "words": f"the prompt's first {WORDS} tokens",
            "precision": self.precision,
            "weights": weights.sha256(self.source.file),
        }
