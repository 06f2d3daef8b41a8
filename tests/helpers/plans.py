"""Networks to plan: the paper's, as a stack of configs, and a tiny one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ccl import planning
from ccl.model import DualStreamTransformer
from ccl.model.adapter import LoRA, freeze
from helpers import ROOT
from helpers.fakes import make_net

PAPER = ("model/wan14b.yaml", "data/shards.yaml", "trainer/stage2.yaml", "trainer/fsdp.yaml")
T, GB = 1e12, 1e9
LAYERS = 2


def argv(*files: str) -> list[str]:
    return [arg for file in ("joint.yaml", *files) for arg in ("--config", str(ROOT / "configs" / file))]


def tiny(layers: int = LAYERS, *, lora: bool = False, checkpointing: bool = False) -> DualStreamTransformer:
    net = make_net(layers=layers)
    if lora:
        freeze("backbones", LoRA(rank=2).adapt(net), torch.nn.Module())
    net.checkpointing = checkpointing
    return net


def short(make: Callable[[], DualStreamTransformer] = tiny) -> planning.Short:
    """A network in short, as a plan reads it."""
    with torch.device("meta"):
        return planning.shorten(make())
