"""Resemblyzer's voice encoder (Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification"): who speaks.

Its keys, so that the published pretrained.pt fits, which also holds what its training needed.
B pieces of T = 160 frames of 10 ms, M = 40 mel bands, D = 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

BANDS, WIDTH, LAYERS = 40, 256, 3
LOSS = ("similarity_weight", "similarity_bias")  # of the training's loss


class VoiceEncoder(nn.Module):
    """Three recurrent layers, whose last state is the voice."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, WIDTH, LAYERS, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> VoiceEncoder:
        """The network of these weights; ValueError where they are not the voice encoder's."""
        state = state.get("model_state", state)
        return filled(cls, {key: value for key, value in state.items() if key not in LOSS}, "the voice encoder")

    def forward(self, mel: Float[Tensor, "b t 40"]) -> Float[Tensor, "b 256"]:
        """Embeddings of length 1, none below 0 in any direction."""
        _, (last, _) = self.lstm(mel)
        return nn.functional.normalize(self.linear(last[-1]).relu(), dim=1)
