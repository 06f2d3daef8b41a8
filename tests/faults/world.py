"""The smallest of everything that commands begin from: clips, shards, latents, a run, a model folder, prompts."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ccl.media import write_png, write_wav
from faults.process import run
from helpers.tiny_clips import TINY, tiny_clip, tiny_folder

ROOT = Path(__file__).parent.parent.parent
JOINT = str(ROOT / "configs/joint.yaml")
SHAPE = f"--frames {TINY.frames} --height {TINY.height} --width {TINY.width}"
OVERLAY = f"""\
runs_dir: runs
grid: {{frames: {TINY.frames}, fps: {TINY.fps:g}, height: {TINY.height}, width: {TINY.width}}}
sampling: {{steps: 2}}
codec: {{audio: {{init_args: {{iterations: 2}}}}}}
model:
  net:
    init_args: {{video: {{width: 48, ffn: 64}}, audio: {{width: 24, ffn: 32}}, layers: 1, head_dim: 12, text_dim: 16}}
  text: {{init_args: {{dim: 16, length: 16, layers: 1, heads: 2, buckets: 64}}}}
  optimizer: {{schedule: constant}}
  pretrained: null
  freeze: null
data:
  class_path: ccl.data.ShardData
  init_args: {{shards: latents, val_shards: null, batch_size: 2, num_workers: 0, seed: 0, shuffle: 4}}
trainer:
  max_steps: 8
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: ccl.callbacks.TaskRouter
    - class_path: ccl.callbacks.EMA
      init_args: {{decay: 0.9, warmup: true}}
    - class_path: ccl.callbacks.LossLog
    - class_path: ccl.callbacks.SaveCheckpoint
      init_args: {{every: 2}}
"""
SMALL = f"--config {JOINT} --config small.yaml"
# The commands, as words.
FIT = f"fit {SMALL}"
MAKE = f"shards make clips -o out --captions captions.csv --shard-size 2 {SHAPE}"
ENCODE = f"shards encode shards -o out {SMALL} --no-text"
CAPTION = f"shards caption clips -o out/captions.jsonl --captioner mine:describe --transcribe none {SHAPE}"
EXPORT = "export runs/run -o out --dtype float32"
PUSH = "push model ann/model --dry -o out"
PUSH_RUN = "push runs/run ann/run --dry -o out"
GENERATE = "generate --ckpt model --prompts rows.jsonl -o out --batch-size 2 --device cpu"
STUDY = "study make --methods one=made two=made --question sync --raters 2 --pairs 4 -o out"
SERVE = "serve --ckpt model --folder out --device cpu"
READ = "study read study answers.jsonl -o out"
EVALUATE = "evaluate --videos made --metrics av_align,onset -o out --batch-size 2"
MERGE = "evaluate merge scores scores/results.json -o out"
MINE = "def describe(clip):\n    return f'{len(clip.video)} pictures of {clip.id}'\n"
CAPTIONS = "file,prompt\n" + "".join(f'clip{i}.mp4,"clip number {i}, ""hello"""\n' for i in range(6))


def make(folder: Path) -> Path:
    """Fill a folder, by the commands themselves.

    Raises:
        RuntimeError: one of them failed; nothing can be tried then.
    """
    folder.mkdir(parents=True)
    tiny_folder(folder / "clips", 6)
    for text in (folder / "clips").glob("*.txt"):
        text.unlink()
    (folder / "captions.csv").write_text(CAPTIONS)
    (folder / "mine.py").write_text(MINE)
    (folder / "small.yaml").write_text(OVERLAY)
    write_wav(folder / "voice.wav", tiny_clip(0).audio)
    write_png(folder / "first.png", tiny_clip(0).video[0])
    rows = [{"id": f"row{i}", "prompt": f'clip number {i} "hello"', "seed": i} for i in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command, out in (
        (MAKE, "shards"),
        (CAPTION, "captions"),
        (ENCODE, "latents"),
        (f"{FIT} --name run", ""),
        (EXPORT, "model"),
        (GENERATE, "made"),
        (EVALUATE, "scores"),
        (STUDY, "study"),
    ):
        ended = run(command.replace("-o out", f"-o {out}"), folder)
        if ended.status:
            raise RuntimeError(f"ccl {command} ended with {ended.status}: {ended.said[-2000:]}")
    (folder / "answers.jsonl").write_text(answers(folder / "study"))
    return folder


def answers(study: Path) -> str:
    """What a rater of the study says who always takes the one on the left, but where both are the same."""
    key = json.loads((study / "key.json").read_text())
    made = []
    for place, trial in enumerate(key["trials"]):
        left, right = trial["clips"]
        said = {"study": key["study"], "rater": "ann", "trial": place, "question": "sync", "left": left, "right": right}
        made.append(said | {"answer": "tie" if trial["check"] else "left"})
    return "".join(json.dumps(one) + "\n" for one in made)


def copy(world: Path, folder: Path, *names: str) -> Path:
    """Some of it, in a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in names:
        if (world / name).is_dir():
            shutil.copytree(world / name, folder / name, symlinks=True)
        else:
            shutil.copy2(world / name, folder / name)
    return folder


def seen(folder: Path, but: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Sizes and times of all files, except in folders of these names."""
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not set(parts) & set(but):
            stat = path.stat()
            found["/".join(parts)] = (stat.st_size, stat.st_mtime_ns)
    return found
