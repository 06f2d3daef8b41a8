"""The world's test set as files: a manifest for each subset and, made on demand, first frames, sounds and clips.

A row (rows.py) has id, prompt, subset, speech, and paths beside the manifest: image, audio (for a2v), reference.
"""

from __future__ import annotations

import json
from pathlib import Path

from ccl.data.world.world import TEST_PAIRS, Subset, World
from ccl.files import replacing_path
from ccl.grid import Grid
from ccl.media import write_clip, write_png, write_wav

SUBSETS: tuple[Subset, Subset] = ("easy", "hard")


def write_testset(
    folder: str | Path, *, seed: int = 0, grid: Grid | None = None, media: bool = True, clips: bool = False
) -> list[Path]:
    """Write easy.jsonl and hard.jsonl of 100 rows each; every file is written whole or not at all.

    Args:
        folder: where to; made if missing.
        seed: of the world.
        grid: size of the pictures and length of the sounds.
        media: also write images/ID.png, the first frame, and audio/ID.wav, the sound, which a2v is given.
        clips: also write clips/ID.mp4, the true clip.

    Returns:
        The two manifests.
    """
    world = World(seed, "test", Grid() if grid is None else grid)
    folder = Path(folder)
    manifests = [folder / f"{subset}.jsonl" for subset in SUBSETS]
    for kind, wanted in ((".", True), ("images", media), ("audio", media), ("clips", clips)):
        if wanted:
            (folder / kind).mkdir(parents=True, exist_ok=True)
    for manifest, start in zip(manifests, (0, TEST_PAIRS), strict=True):
        rows = []
        for index in range(start, start + TEST_PAIRS):
            name, line = world.id(index), world.line(index)
            rows.append(
                {
                    "id": name,
                    "prompt": world.prompt(index),
                    "image": f"images/{name}.png",
                    "audio": f"audio/{name}.wav",
                    "subset": world.subset(index),
                    "speech": line.sentence,
                    "lang": "en",
                    "pair": world.id(index - start),
                    "seconds": world.grid.seconds,
                    "reference": f"clips/{name}.mp4",
                }
            )
            if not (media or clips):
                continue
            clip = world.clip(index)
            assert clip.video is not None and clip.audio is not None
            if media:
                write_png(folder / "images" / f"{name}.png", clip.video[0])
                write_wav(folder / "audio" / f"{name}.wav", clip.audio, clip.sample_rate)
            if clips:
                write_clip(clip, folder / "clips" / f"{name}.mp4")
        with replacing_path(manifest) as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifests
