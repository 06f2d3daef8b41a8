"""The smallest real model, for tests of everything around it."""

from __future__ import annotations

from typing import Any

import torch
import yaml

from ccl.model_folder import build
from ccl.pipeline import Pipeline

TINY_CONFIG = """
net:
  class_path: ccl.model.DualStreamTransformer
  init_args:
    video: {width: 48, ffn: 64, channels: 16}
    audio: {width: 24, ffn: 32, channels: 40}
    layers: 2
    head_dim: 12
    text_dim: 16
    interaction:
      class_path: ccl.interaction.CCA
      init_args: {align: {class_path: ccl.interaction.TARP}, num_context_video: 16}
text:
  class_path: ccl.text.EmbeddedText
  init_args: {dim: 16, length: 16, layers: 1, heads: 2, buckets: 64}
codec:
  class_path: ccl.codecs.Codec
  init_args:
    video: {class_path: ccl.codecs.EmbeddedVideo}
    audio: {class_path: ccl.codecs.EmbeddedAudio, init_args: {iterations: 2}}
grid: {frames: 9, fps: 25.0, height: 16, width: 16}
sampling:
  guidance: {class_path: ccl.guidance.UCG2, init_args: {scale: {video: 2.0, audio: 2.0}}}
  steps: 2
"""


def tiny_config() -> dict[str, Any]:
    return yaml.safe_load(TINY_CONFIG)


def awake(module: torch.nn.Module, seed: int = 0) -> None:
    """Random weights everywhere: a fresh network gives zero, and closed and open routes alike."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * (0.3 if parameter.ndim > 1 else 0.1))


def tiny_pipeline() -> Pipeline:
    model = build(tiny_config(), "tiny")
    awake(model.net), awake(model.text, 1)
    return Pipeline(model.net, model.text, model.codec, model.grid, **vars(model.sampling))
