"""Whether a change of the code changed numbers: 20 losses of a config, and latents of clips of the shipped checkpoint.

python benchmarks/equal.py [--config configs/joint.yaml] [--steps 20] [--save FILE] [--against FILE]

Prints every loss with all its digits, a sha256 of all of them, and one of each clip's latents. Two versions of the code
that are bit-equal print the same on one machine, with one version of torch, on the same shards: a world that is made
anew differs in a few clips' pictures. Where latents differ, `--save` with one version and `--against` with the other
says by how much.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import ccl
from ccl.cli import main
from ccl.types import AV

SPEECH = (
    'A man with brown hair and a white shirt in front of a yellow wall says in a low voice "it is cold in the house"'
)
BALL = "An orange ball in front of a grey wall falls and lands on the floor with a thud"


def losses(config: str, steps: int) -> list[str]:
    """Lines of losses.jsonl of a run's first steps, without what a clock says."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["fit", "--config", config, "--trainer.max_steps", str(steps), "--runs_dir", folder]
        if main([*arguments, "--name", "equal"]):
            raise SystemExit("the training did not end well")
        rows = [json.loads(line) for line in Path(folder, "equal/losses.jsonl").read_text().splitlines()]
    return [json.dumps({key: x for key, x in row.items() if "second" not in key}) for row in rows]


# Given media that are nobody's clip: those of a version would carry its last bits into the other tasks.


def sound(samples: int, rate: int) -> np.ndarray:
    """A tone that rises from 100 to 400 Hz, four times a second louder and softer."""
    t = np.arange(samples) / rate
    rising = 2 * np.pi * (100 * t + 150 * t**2 / t[-1])
    return (0.2 * np.sin(rising) * (1 - np.cos(2 * np.pi * 4 * t))).astype(np.float32)


def pictures(frames: int, height: int, width: int) -> np.ndarray:
    """A bright bar that wanders over a slope of colours."""
    video = np.zeros((frames, height, width, 3), np.uint8)
    video[..., 0] = np.linspace(40, 200, width, dtype=np.uint8)
    video[..., 1] = np.linspace(200, 40, height, dtype=np.uint8)[:, None]
    for i, frame in enumerate(video):
        frame[:, i * width // frames : i * width // frames + 4] = 255
    return video


def latents() -> dict[str, torch.Tensor]:
    """Latents of two clips from text, one of given sound and one of given pictures, by name."""
    pipe = ccl.load(device="cpu")
    found: dict[str, torch.Tensor] = {}
    # The way out of a Pipeline, whatever it is called in this version.
    decode = pipe.codec.decode

    def caught(z: AV[torch.Tensor | None]) -> AV[torch.Tensor | None]:
        found.update({f"{name} {stream}": x.contiguous() for stream, x in z._asdict().items() if x is not None})
        return decode(z)

    pipe.codec.decode = caught  # type: ignore[method-assign]
    name = "text"
    pipe(SPEECH, steps=8)
    name = "text, ucg3"
    pipe(BALL, guidance="ucg3", steps=8, seed=7)
    name = "a2v"
    pipe(SPEECH, audio=sound(pipe.grid.samples, pipe.grid.sample_rate), steps=8)
    name = "v2a"
    pipe(SPEECH, video=pictures(pipe.grid.frames, pipe.grid.height, pipe.grid.width), steps=8)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/joint.yaml")
    parser.add_argument("--steps", type=int, default=20, help="0: latents alone")
    parser.add_argument("--save", help="a file for the latents")
    parser.add_argument("--against", help="a file of another version's latents")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.steps:
        rows = losses(args.config, args.steps)
        print("\n".join(rows))
        print(f"{len(rows)} losses: {hashlib.sha256(''.join(rows).encode()).hexdigest()[:16]}")
    found = latents()
    other = load_file(args.against) if args.against else {}
    for name, x in found.items():
        apart = ""
        if name in other:
            largest = float((x - other[name]).abs().max() / other[name].abs().max())
            apart = f", {largest:.3g} of the largest number apart at most"
        print(f"{name}: {hashlib.sha256(x.numpy().tobytes()).hexdigest()[:16]}{apart}")
    if args.save:
        save_file(found, args.save)
