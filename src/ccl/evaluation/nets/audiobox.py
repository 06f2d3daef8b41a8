"""AudioBox-Aesthetics (Tjandra et al. 2025, arXiv 2502.05139): four ratings of a sound, under the published keys.

For each axis the outputs of all WavLM layers are summed with learned weights, averaged over the frames that are sound,
made unit and read by an MLP. The ratings come normalised; the metric scales them to 1..10 with the
checkpoint's own means and deviations.

B windows, S samples, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled
from ccl.evaluation.nets.wavlm import WavLM

AXES = ("CE", "CU", "PC", "PQ")  # content enjoyment, content usefulness, production complexity, production quality


class Aesthetics(nn.Module):
    """WavLM and a head for each axis. The arguments are the published config's, with its package's defaults.

    Args:
        proj_num_layer: linear layers of a head.
        proj_ln: a LayerNorm after each but the last.
        proj_dropout: none is applied here; above 0 it moves the head's keys.
        nth_layer: outputs of WavLM that count, its first layer's input among them.
        use_weighted_layer_sum: else the last of them alone.
        normalize_embed: make the mean unit.
        wavlm: of another size, for tests.
    """

    def __init__(
        self,
        *,
        proj_num_layer: int = 1,
        proj_ln: bool = False,
        proj_dropout: float = 0,
        nth_layer: int = 13,
        use_weighted_layer_sum: bool = True,
        normalize_embed: bool = True,
        wavlm: WavLM | None = None,
    ) -> None:
        super().__init__()
        self.wavlm_model = wavlm or WavLM()
        dim = self.wavlm_model.post_extract_proj.out_features
        self.nth_layer, self.normalize_embed = nth_layer, normalize_embed
        self.proj_layer = nn.ModuleDict({axis: head(dim, proj_num_layer, proj_ln, bool(proj_dropout)) for axis in AXES})
        if use_weighted_layer_sum:
            self.layer_weights = nn.ParameterDict({axis: torch.zeros(nth_layer) for axis in AXES})

    @classmethod
    def of(cls, state: Mapping[str, Any], **settings: Any) -> Aesthetics:
        """The network of these weights, its WavLM as large as they are.

        Args:
            state: weights by the published keys.
            settings: the other arguments, which no tensor tells.

        Raises:
            ValueError: they are not AudioBox-Aesthetics'.
        """
        prefix = "wavlm_model."
        encoder = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        return filled(lambda: cls(**settings, wavlm=WavLM.of(encoder)), state, "AudioBox-Aesthetics")

    def forward(self, sound: Float[Tensor, "b s"], valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b 4"]:
        """Normalised ratings in the order of AXES; `valid` is false where a window is padded."""
        outputs, padding = self.wavlm_model(sound, ~valid)
        keep = (~padding).float()[..., None]
        # The mean over time first: it commutes with the sum over layers, and thirteen vectors are left.
        means = [(x.float() * keep).sum(1) / keep.sum(1).clamp(min=1) for x in outputs[: self.nth_layer]]
        layers = torch.stack(means)
        return torch.stack([self._rate(axis, layers) for axis in AXES], dim=1).float()

    def _rate(self, axis: str, layers: Float[Tensor, "l b d"]) -> Float[Tensor, " b"]:
        mean = layers[-1]
        if hasattr(self, "layer_weights"):
            mean = torch.einsum("lbd,l->bd", layers, self.layer_weights[axis].softmax(-1))
        if self.normalize_embed:
            mean = F.normalize(mean, dim=-1)
        return self.proj_layer[axis](mean)[:, 0]


def head(dim: int, layers: int, norm: bool, dropout: bool) -> nn.Sequential:
    """An MLP of one output; members that do nothing here keep the published numbers of the others."""
    members: list[nn.Module] = []
    for _ in range(layers - 1):
        members += [nn.Linear(dim, dim), *([nn.LayerNorm(dim)] if norm else []), nn.GELU()]
        members += [nn.Identity()] if dropout else []
    return nn.Sequential(*members, nn.Linear(dim, 1))
