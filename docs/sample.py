"""Draw docs/sample.png, clips of the shipped checkpoint, eight pictures each over their sound; sample.mp4 is the first.

    python docs/sample.py [--ckpt FOLDER] [--seed 0]

Prompts are the first portraits and figures of the world's test split, none chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

import ccl
from ccl.rows import read_rows

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PICTURES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", help="a model folder (the one that ships)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/sample.png"))
    args = parser.parse_args()
    pipe = ccl.load(args.ckpt)
    rows = [
        row for name in ("easy", "hard") for row in read_rows(f"evaluation/testset/world/{name}.jsonl", give=())[:2]
    ]
    clips = [pipe(row.prompt, seed=args.seed + number) for number, row in enumerate(rows)]
    figure, axes = plt.subplots(
        2 * len(clips), 1, figsize=(9, 2 * len(clips)), gridspec_kw={"height_ratios": [3, 1] * len(clips)}
    )
    for clip, (pictures, sound) in zip(clips, axes.reshape(-1, 2), strict=True):
        chosen = clip.video[np.linspace(0, len(clip.video) - 1, PICTURES).round().astype(int)]
        pictures.imshow(np.concatenate(list(chosen), axis=1), interpolation="nearest", aspect="equal")
        pictures.set_title(clip.prompt, fontsize=7, loc="left")
        sound.plot(np.arange(len(clip.audio)) / clip.sample_rate, clip.audio, lw=0.4)
        sound.set(xlim=(0, len(clip.audio) / clip.sample_rate), ylim=(-0.6, 0.6))
        for axis in (pictures, sound):
            axis.set_axis_off()
    figure.tight_layout(pad=0.3)
    figure.savefig(args.out, dpi=110)
    clips[0].save(args.out.with_suffix(".mp4"))


if __name__ == "__main__":
    main()
