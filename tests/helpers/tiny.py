"""The smallest real model, for tests of everything around it."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import torch
import yaml

from ccl.generation import Pipeline
from ccl.storage.model_folder import Model, build

SMALL = """\
model:
  net: {init_args: {video: {width: 64, ffn: 64}, audio: {width: 32, ffn: 32}, layers: 1}}
  optimizer: {schedule: constant}
  pretrained: null
  freeze: null
trainer:
  max_steps: 1
  callbacks:
    - class_path: ccl.callbacks.TaskRouter
    - class_path: ccl.callbacks.SaveCheckpoint
sampling: {steps: 1}
"""

PROMPTS = ['A man with red hair says "hello"', 'A woman says "good morning"', "A drum is struck"]

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


@cache
def tiny_model() -> Model:
    """Built and filled once a process: nobody may change it."""
    model = build(tiny_config(), "tiny")
    awake(model.net), awake(model.text, 1)
    return model


def tiny_pipeline() -> Pipeline:
    model = deepcopy(tiny_model())
    return Pipeline(model.net, model.text, model.codec, model.grid, **vars(model.sampling))


def close(a, b) -> bool:
    """Equal up to the rounding of batched arithmetic."""
    pictures = np.abs(a.video.astype(int) - b.video.astype(int)).max() <= 1
    return bool(pictures and np.abs(a.audio - b.audio).max() < 1e-2)


def close_in_files(a, b) -> bool:
    """As `close`, of clips that were written: codecs choose otherwise for a value that is one off, and move others with
    it: pictures were 1.5 of 255 off on average, sound 0.001. Another prompt's clip is 18 and 0.4 off.
    """
    pictures = np.abs(a.video.astype(int) - b.video.astype(int)).mean() < 4
    return bool(pictures and np.abs(a.audio - b.audio).mean() < 0.02)


def tiny_state(scale: float = 1.0) -> dict[str, torch.Tensor]:
    parts = {"net": tiny_model().net, "text": tiny_model().text}
    return {f"{name}.{k}": v * scale for name, part in parts.items() for k, v in part.state_dict().items()}


def run_folder(tmp_path, state, **more):
    config = tiny_config()
    run = {
        "name": "x",
        "seed_everything": 0,
        "grid": config["grid"],
        "codec": config["codec"]["init_args"],
        "model": {"net": config["net"], "text": config["text"], "text_dropout": 0.1},
    }
    ckpt = tmp_path / "runs" / "x" / "checkpoints" / "last.ckpt"
    ckpt.parent.mkdir(parents=True)
    (ckpt.parents[1] / "config.yaml").write_text(yaml.safe_dump(run))
    torch.save({"state_dict": state, "global_step": 7, **more}, ckpt)
    return ckpt
