"""What the closed-form codecs keep: PSNR of the pictures, words of the speech, the mouth's movement, in one run.

    CCL_TEST_DATA=... python benchmarks/codec.py [--clips 50] [--basis mine.safetensors] [--no-speech]

The world's test clips as drawn and after h264, and real clips from CCL_TEST_DATA/clips, go through encode and decode.
Whisper tiny.en (CCL_TEST_DATA/weights/whisper-tiny.en.pt) hears the test sentences before and after. Goals: 30 dB; at
most 5 points of word error rate more. What is not there is said and left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from ccl.codecs import EmbeddedAudio, EmbeddedVideo
from ccl.data.world import World
from ccl.evaluation.metrics.mouth import correlate, envelope, opening
from ccl.evaluation.metrics.wer import WER
from ccl.grid import Grid
from ccl.media import Clip, MediaError, read_clip, write_clip
from ccl.types import AV

GOAL_DB, GOAL_POINTS = 30.0, 5.0
REAL_SIZES = ((48, 48), (96, 160))


def through(codec: EmbeddedVideo, video: np.ndarray) -> np.ndarray:
    """Pictures after encode and decode, uint8."""
    x = rearrange(torch.tensor(video), "f h w c -> 1 c f h w") / 127.5 - 1
    y = (codec.decode(codec.encode(x)) + 1) * 127.5
    return rearrange(y.round().to(torch.uint8), "1 c f h w -> f h w c").numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels below the full range of 255."""
    return float(-10 * np.log10(((a.astype(np.float64) - b) ** 2).mean() / 255**2))


def pictures(codec: EmbeddedVideo, name: str, clips: Iterable[Clip]) -> None:
    values = [psnr(clip.video, through(codec, clip.video)) for clip in clips if clip.video is not None]
    mean = statistics.mean(values)
    verdict = "met" if mean >= GOAL_DB else "MISSED"
    print(f"PSNR {name:<34} {mean:5.1f} dB (least {min(values):4.1f}) over {len(values):3} clips; goal 30: {verdict}")


def compressed(clips: Iterable[Clip]) -> Iterable[Clip]:
    """The clips as a user's files hold them: through h264."""
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips:
            path = Path(folder) / f"{clip.id}.mp4"
            write_clip(clip, path)
            yield read_clip(path)


def real(folder: Path, height: int, width: int) -> Iterable[Clip]:
    for path in sorted(folder.glob("*.mp4")):
        try:
            yield read_clip(path, grid=Grid(height=height, width=width), require=AV(True, False))
        except MediaError as error:
            print(f"left out: {error}")


def mouths(video: EmbeddedVideo, audio: EmbeddedAudio, name: str, clips: list[Clip]) -> None:
    """The world's sync measure before and after: its ceiling for anything generated."""
    before, after = [], []
    for clip in clips:
        assert clip.video is not None and clip.audio is not None
        heard = audio.decode(audio.encode(torch.tensor(clip.audio)[None], Grid().t_a))[0].numpy()
        for scores, pixels, sound in ((before, clip.video, clip.audio), (after, through(video, clip.video), heard)):
            loudness = envelope(sound, len(pixels), clip.fps, clip.sample_rate)
            scores.append(correlate(opening(pixels), loudness))
    print(f"mouth and voice, {name:<21} {statistics.mean(before):.3f} before, {statistics.mean(after):.3f} after")


def speech(codec: EmbeddedAudio, clips: list[Clip], weights: Path) -> None:
    listener = WER(str(weights))
    if why := listener.missing():
        print(f"word error rate left out: {why}")
        return
    samples = torch.tensor(np.stack([clip.audio for clip in clips if clip.audio is not None]))
    start = time.process_time()
    decoded = codec.decode(codec.encode(samples, Grid().t_a)).numpy()
    seconds = (time.process_time() - start) / len(clips)
    rates = []
    for version in (clips, [replace(clip, audio=audio) for clip, audio in zip(clips, decoded, strict=True)]):
        listener.reset()
        listener.update(version)
        rates.append(100 * listener.compute()["wer"])
    before, after = rates
    verdict = "met" if after - before <= GOAL_POINTS else "MISSED"
    print(
        f"word error rate over {len(clips)} sentences: {before:.1f} % before, {after:.1f} % after; "
        f"{after - before:+.1f} points, goal at most +5: {verdict}"
    )
    loss = 20 * np.log10(np.sqrt((decoded**2).mean()) / samples.square().mean().sqrt().item())
    print(f"loudness {loss:+.1f} dB; {seconds * 1000:.0f} ms of CPU a clip for encode and decode")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=50, help="of each kind (at most 100)")
    parser.add_argument("--basis", help="a file made by `ccl codec fit`; the shipped one if not given")
    parser.add_argument("--video-channels", type=int, default=16)
    parser.add_argument("--audio-channels", type=int, default=40)
    parser.add_argument("--no-speech", action="store_true", help="leave the recogniser out")
    args = parser.parse_args()
    video = EmbeddedVideo(args.video_channels, args.basis)
    audio = EmbeddedAudio(args.audio_channels, args.basis)
    print(video.identity, audio.identity)

    test, train = World(split="test"), World(split="train")
    easy, hard = ([test.clip(first + i) for i in range(args.clips)] for first in (0, 100))
    # Clips far behind those that a fit takes.
    pictures(video, "world, training split, unseen", [train.clip(100_000 + i) for i in range(args.clips)])
    pictures(video, "world, test, easy", easy)
    pictures(video, "world, test, hard", hard)
    pictures(video, "world, test, easy, after h264", compressed(easy))
    pictures(video, "world, test, hard, after h264", compressed(hard))
    mouths(video, audio, "easy", easy)
    mouths(video, audio, "hard", hard)
    data = os.environ.get("CCL_TEST_DATA")
    if data is None:
        print("real clips and the word error rate left out: CCL_TEST_DATA is not set")
        return
    for height, width in REAL_SIZES:
        pictures(video, f"real, {height} x {width}", real(Path(data) / "clips", height, width))
    if not args.no_speech:
        speech(audio, easy, Path(data) / "weights" / "whisper-tiny.en.pt")


if __name__ == "__main__":
    main()
