"""CLIP ViT-H/14, as Wan2.1-I2V sees the first picture: transformers' CLIPVisionModel, its last layer but one.

A picture is squeezed to a square, as Wan's own code does; transformers' image processor would cut its sides off.

B pictures, N states (257), D width (1280).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ccl.image.base import ImageEncoder
from ccl.weights.fill import fill
from ccl.weights.find import find
from ccl.weights.frozen import Frozen, Precision
from ccl.weights.read import read_json, tensors

WHAT = "the image encoder CLIP"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, of pictures in [0, 1]


class CLIPVision(ImageEncoder):
    """Pictures to (B, tokens, dim) states of CLIP's vision transformer; frozen.

    Nothing is read before the first picture, so a model can be built where the weights are not. The network is held
    outside the module tree, goes to the device of what it is given, and is no part of a checkpoint.

    Args:
        path: a pipeline's folder in diffusers' layout (image_encoder/ in it), the encoder's own folder, a name of
            `ccl weights list`, or OWNER/REPO of the hub.
        dim: width of a state.
        tokens: states of a picture: its patches, and one of the whole.
        dtype: the network computes in; states are float32 all the same.

    Raises:
        ValueError: when first used: there are no such weights, or of other states; one sentence.
    """

    sources = ("path",)

    def __init__(self, path: str | Path, dim: int = 1280, tokens: int = 257, dtype: Precision = "float32") -> None:
        super().__init__()
        self.path, self.dim, self.tokens = path, dim, tokens
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.network: Frozen[Any] = Frozen(self._load)

    def unload(self) -> None:
        self.network.unload()

    @torch.no_grad()
    def forward(self, pictures: Float[Tensor, "b 3 hp wp"]) -> Float[Tensor, "b n i"]:
        net = self.network.on(pictures.device)
        with torch.autocast(pictures.device.type, enabled=False):
            x = to_pixels(pictures, net.config.image_size)
            return net(x.to(self.dtype), output_hidden_states=True).hidden_states[-2].float()

    def _load(self, device: torch.device) -> Any:
        from transformers import CLIPVisionModel

        source, config = locate(self.path)
        theirs = (config.hidden_size, (config.image_size // config.patch_size) ** 2 + 1)
        if theirs != (self.dim, self.tokens):
            raise ValueError(
                f"{source} gives {theirs[1]} states of {theirs[0]} numbers; the image encoder is set to "
                f"{self.tokens} of {self.dim}"
            )
        with torch.device("meta"):
            net: Any = CLIPVisionModel(config)
        fill(net, {name: tensor.to(device, self.dtype) for name, tensor in read_state(source)}, source, assign=True)
        # Not in the file, so left without memory by `fill`.
        net.embeddings.position_ids = torch.arange(self.tokens, device=device)[None]
        return net


def to_pixels(pictures: Float[Tensor, "b 3 hp wp"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Pictures in [-1, 1] as CLIP reads them: of its size, and normalised by its statistics."""
    x = pictures.float()
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (MEAN, STD))
    return ((x + 1) / 2 - mean) / std


def locate(path: str | Path) -> tuple[Path, Any]:
    """The folder of the weights and its CLIPVisionConfig.

    Raises:
        ValueError: there are none, or they are of another network.
    """
    from transformers import CLIPVisionConfig

    place = find(path, WHAT)
    configs = (folder / "config.json" for folder in (place, place / "image_encoder"))
    found = {file: read_json(file) for file in configs if file.is_file()}
    for file, config in found.items():
        if config.get("model_type") == "clip_vision_model":
            return file.parent, CLIPVisionConfig(**config)
    if found:
        file, config = next(iter(found.items()))
        kind = config.get("model_type") or config.get("_class_name") or "another network"
        raise ValueError(f"{file} is of {kind}, not of {WHAT}, CLIPVisionModel")
    raise ValueError(f"{place} holds nothing of {WHAT}: no config.json, no image_encoder/config.json")


def read_state(source: Path) -> Iterator[tuple[str, Tensor]]:
    """Weights in the names of CLIPVisionModel, whose prefix some releases of transformers write and others do not."""

    def wanted(name: str) -> bool:
        return not name.startswith("visual_projection.") and not name.endswith("position_ids")

    return ((name.removeprefix("vision_model."), tensor) for name, tensor in tensors(source, wanted))
