"""Small Wan streams, diffusers' and ours, of one layout, and inputs for both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from ccl.grid import Grid
from ccl.interaction import NoInteraction
from ccl.model import DualStreamTransformer, OviAudioStream, Shown, WanImageStream, WanStream
from ccl.model.image import with_mask
from ccl.model.keys import diffusers_to_wan
from ccl.model.load import load_wan
from ccl.types import ALONE, AV

GRID = Grid(frames=13, height=64, width=48)  # 4 x 4 x 3 tokens
IMAGE = {"image_dim": 20, "image_tokens": 7}


def awake(model: nn.Module, seed: int = 0) -> Any:
    """Random weights everywhere; nothing that is zero may hide."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.1)
    return model.eval()


def wan(head_dim: int = 32, channels: int = 16, **more: Any) -> WanTransformer3DModel:
    sizes = {"in_channels": channels, "out_channels": channels, "text_dim": 24, "ffn_dim": 96, "freq_dim": 64} | more
    return awake(WanTransformer3DModel(num_attention_heads=2, attention_head_dim=head_dim, num_layers=2, **sizes))


def wan_i2v(head_dim: int = 32) -> WanTransformer3DModel:
    return wan(head_dim, in_channels=36, image_dim=IMAGE["image_dim"], added_kv_proj_dim=2 * head_dim)


def ours(head_dim: int = 32, channels: int = 16, **more: Any) -> Any:
    sizes: dict[str, Any] = {"interaction": NoInteraction, "freq_dim": 64, "text_dim": 24, "layers": 2} | more
    video, audio = WanStream(2 * head_dim, 96, channels), WanStream(head_dim, 32, 4)
    return DualStreamTransformer(**{"video": video, "audio": audio, "head_dim": head_dim, **sizes}).eval()


def ours_i2v(head_dim: int = 32) -> DualStreamTransformer:
    return ours(head_dim, video=WanImageStream(2 * head_dim, 96, 16, **IMAGE))


def ours_ovi(audio: OviAudioStream, **more: Any) -> DualStreamTransformer:
    return ours(audio=audio, rescale=0.19676, **more)


def inputs(channels: int = 16, length: int = 10) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    text = torch.randn(2, length, 24)
    text[:, 7:] = 0  # padding, which is attended to
    return torch.randn(2, channels, GRID.t_v, GRID.latent_height, GRID.latent_width), text


def alone(net: Any, x: Tensor, t: Tensor, text: Any, grid: Grid = GRID, **more: Any) -> Tensor:
    return net(AV(x, None), AV(t, None), text, grid=grid, view=ALONE, **more).velocity.video


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def shown(noise: Tensor) -> tuple[Shown, Tensor]:
    """A first picture, and the 20 channels that diffusers' pipeline puts beside the noisy ones, step by step."""
    torch.manual_seed(2)
    latents, states = torch.randn_like(noise), torch.randn(2, 7, 20)
    mask = torch.ones(2, 1, GRID.frames, *noise.shape[-2:])
    mask[:, :, 1:] = 0
    mask = torch.cat([mask[:, :, :1].repeat_interleave(4, 2), mask[:, :, 1:]], 2)
    mask = mask.view(2, -1, 4, *noise.shape[-2:]).transpose(1, 2)
    return Shown(with_mask(latents), states), torch.cat([mask, latents], 1)


def original(model: torch.nn.Module) -> dict[str, Tensor]:
    """A model of diffusers in the names of Wan's own files, as diffusers' converter reads them."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    theirs = model.state_dict()
    state = {diffusers_to_wan(key): value.clone() for key, value in theirs.items()}
    back = convert_wan_transformer_to_diffusers(dict(state))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)
    return state


def as_shards_of_wan(model: WanTransformer3DModel, folder: Path) -> Path:
    """Wan2.1-14B's repository: shards of its own names, and the files of other networks beside them."""
    state = original(model)
    names = {key: f"diffusion_pytorch_model-0000{i % 3 + 1}-of-00003.safetensors" for i, key in enumerate(state)}
    for name in set(names.values()):
        save_file({key: value for key, value in state.items() if names[key] == name}, folder / name)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    torch.save({"encoder.conv1.weight": torch.ones(1)}, folder / "Wan2.1_VAE.pth")
    return folder


def refused(net: Any, path: Any) -> str:
    """The one sentence; the network stays as it was."""
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ValueError) as told:
        load_wan(net, path)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert "\n" not in str(told.value)
    return str(told.value)
