"""From a folder of videos to a scored clip, with every pretrained part in its published layout: random, and tiny.

The parts lie in a folder of weights under the names of `ccl weights list`, so that the configs of the paper's stages
are used as they are; an overlay makes the network as small as the parts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file

from ccl import cli
from ccl.grid import Grid
from ccl.media import read_clip
from ccl.model.load import stream_state
from ccl.weights.catalogue import TABLE
from helpers.mmaudio_files import normalised, vae_state, vocoder_state
from helpers.tiny_clips import tiny_folder
from helpers.umt5_files import encoder, save_tokenizer

ROOT = Path(__file__).parent.parent
CLIPS = Path(os.environ.get("CCL_TEST_DATA", "none")).absolute() / "clips"  # real ones, where there are some
GRID = Grid(frames=9, fps=16.0, height=32, width=32)
LENGTH, DIM = 24, 32  # of the text states
WAN = "wan2.1-t2v-1.3b"
OVERLAY = f"""
grid: {{frames: {GRID.frames}, fps: {GRID.fps}, height: {GRID.height}, width: {GRID.width}}}
sampling: {{steps: 2}}
model:
  net:
    init_args: {{video: {{width: 32, ffn: 48}}, audio: {{width: 16, ffn: 32}}, layers: 2, head_dim: 16, text_dim: {DIM},
      checkpointing: false, freq_dim: 16}}
  text: {{init_args: {{dim: {DIM}, length: {LENGTH}, dtype: float32}}}}
trainer:
  callbacks:
    - class_path: ccl.callbacks.TaskRouter
    - class_path: ccl.callbacks.EMA
      init_args: {{decay: 0.5, warmup: true}}
    - class_path: ccl.callbacks.LossLog
    - class_path: ccl.callbacks.SaveCheckpoint
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and one of weights that has all of a small Wan2.1 and of MMAudio."""
    weights = tmp_path / "weights"
    wan = weights / TABLE[WAN].file
    torch.manual_seed(0)
    AutoencoderKLWan(base_dim=8).save_pretrained(wan / "vae")
    transformer(0).save_pretrained(wan / "transformer", max_shard_size="100KB")
    encoder().save_pretrained(wan / "text_encoder")
    save_tokenizer(wan / "tokenizer")
    torch.save(vae_state("16k"), weights / TABLE["mmaudio-v1-16"].file)
    vocoder = normalised(vocoder_state("16k"), new=False)
    torch.save({"generator": vocoder}, weights / TABLE["mmaudio-best-netg"].file)
    (tmp_path / "small.yaml").write_text(OVERLAY)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("CCL_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def transformer(seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    sizes = {"in_channels": 16, "out_channels": 16, "text_dim": DIM, "ffn_dim": 48, "freq_dim": 16}
    return WanTransformer3DModel(num_attention_heads=2, attention_head_dim=16, num_layers=2, **sizes)


def run(line: str) -> None:
    assert cli.main(line.split()) == 0, line


def losses(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("runs", run, "losses.jsonl").read_text().splitlines()]


@pytest.mark.timeout(300)
def test_a_folder_of_videos_becomes_a_model_that_is_scored(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = "--config configs/joint.yaml --config configs/model/wan1_3b.yaml --config configs/data/shards.yaml"
    shape = f"--frames {GRID.frames} --fps {GRID.fps:g} --height {GRID.height} --width {GRID.width}"
    if CLIPS.is_dir():
        Path("videos").mkdir()
        for clip in sorted(CLIPS.glob("*.mp4"))[:4]:
            Path("videos", clip.name).symlink_to(clip)
            Path("videos", clip.name).with_suffix(".txt").write_text(f'something that is called "{clip.stem}"')
    else:
        tiny_folder(Path("videos"), 4, GRID)

    run(f"shards make videos -o data/clips {shape}")
    run(f"shards encode data/clips -o data/latents {stack} --config small.yaml")
    fit = f"fit {stack} --config small.yaml"
    few = "--data.init_args.shards data/latents --data.init_args.batch_size 2 --data.init_args.num_workers 0 "
    few += "--trainer.max_steps 2 --trainer.enable_progress_bar false"

    # Stage 1: sound alone.
    run(f"{fit} --config configs/audio.yaml {few}")
    assert all(row["task"] == "audio" for row in losses("stage1"))
    run("export runs/stage1 -o models/stage1 --dtype float32")
    stage1 = load_file("models/stage1/model.safetensors")
    assert stage1 and not any(".video." in name or "interaction" in name for name in stage1)

    # Stage 2: from both streams.
    capsys.readouterr()
    sources = f"--model.pretrained.video {WAN} --model.pretrained.audio models/stage1"
    run(f"{fit} {few} --name stage2 {sources}")
    said = capsys.readouterr().out
    theirs = transformer(0).state_dict()
    assert f"{WAN}: {len(theirs)} tensors of the video stream loaded" in said
    assert f"models/stage1: {len(stage1)} tensors of the audio stream loaded" in said
    assert len(losses("stage2")) == 2 and all(np.isfinite(row["loss"]) for row in losses("stage2"))
    run("export runs/stage2 -o models/stage2 --dtype float32")
    stage2 = {name.removeprefix("net."): x for name, x in load_file("models/stage2/model.safetensors").items()}
    assert len(stream_state(stage2, "video")) == len(theirs) and len(stream_state(stage2, "audio")) == len(stage1)
    assert any("interaction" in name for name in stage2)

    # Clips, and scores.
    prompts = [{"id": f"clip{i}", "prompt": f"clip number {i}", "seed": i} for i in range(2)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    made = "generate --ckpt models/stage2 --prompts prompts.jsonl --device cpu"
    run(f"{made} -o out/usual --batch-size 1")
    run(f"{made} -o out/offload --batch-size 1 --offload")
    clip, again = (read_clip(f"out/{name}/clip1.mp4") for name in ("usual", "offload"))
    assert clip.video is not None and clip.video.shape == (GRID.frames, GRID.height, GRID.width, 3)
    assert clip.audio is not None and np.array_equal(clip.video, again.video)
    assert np.array_equal(clip.audio, again.audio)  # umT5 reads each prompt alone, and the codecs each clip
    run("evaluate --videos out/usual --metrics av_align -o scores")
    assert Path("scores/table.md").is_file()

    # Where the parts are gone, a sentence names them all before the model is read.
    os.environ["CCL_WEIGHTS"] = "elsewhere"
    capsys.readouterr()
    assert cli.main([*made.split(), "-o", "out/none"]) == 1
    assert f"`ccl weights fetch {WAN} mmaudio-v1-16 mmaudio-best-netg` fetches them" in capsys.readouterr().err
