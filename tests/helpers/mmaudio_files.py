"""MMAudio's files in the layouts that are published, small and of random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccl.codecs.mmaudio import VARIANTS

SIZES = {"16k": (80, 20), "44k": (128, 40)}
WIDTH = 8  # of the VAE's first level; the authors' is 384 or 512
VOCODER_WIDTH = 64  # halved at each of six stages; the authors' is 1536


def vae_state(variant: str, seed: int = 0) -> dict[str, Tensor]:
    """Raw weights as the authors publish them: elements near 1, the statistics of the mel in the same table."""
    from diffusers.models.autoencoders.autoencoder_mmaudio import MMAudioAutoencoder

    bands, channels = SIZES[variant]
    g = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = MMAudioAutoencoder(bands, channels, WIDTH, (1, 2, 4), 2).state_dict()
    state = {name: torch.randn(x.shape, generator=g) for name, x in shapes.items()}
    state["data_std"] = state["data_std"].abs() + 0.5
    return state


def vocoder_state(variant: str, seed: int = 0) -> dict[str, Tensor]:
    """Weights with no normalisation left, those of the filters as the network makes them."""
    torch.manual_seed(seed)
    return {k: x.clone() for k, x in vocoder(variant).state_dict().items()}


def vocoder(variant: str) -> nn.Module:
    from diffusers import MMAudioVocoder

    rates = VARIANTS[variant].rates
    net = MMAudioVocoder(SIZES[variant][0], VOCODER_WIDTH, rates, tuple(2 * rate for rate in rates))
    if variant == "16k":
        net.conv_post = nn.Conv1d(VOCODER_WIDTH // 64, 1, 7, padding=3)
    return net.eval()


def normalised(state: dict[str, Tensor], new: bool) -> dict[str, Tensor]:
    """The same weights under weight normalisation, in torch's old spelling or its new one."""
    spelling = [f"parametrizations.weight.original{i}" for i in range(2)] if new else ["weight_g", "weight_v"]
    out = {}
    for name, tensor in state.items():
        if tensor.ndim == 3 and name.endswith(".weight"):
            layer = name.removesuffix("weight")
            out[layer + spelling[0]] = tensor.flatten(1).norm(dim=1)[:, None, None]
            out[layer + spelling[1]] = tensor * 3.7
        else:
            out[name] = tensor
    return out
