"""Clips that are given at one end and go on from there, and longer ones: what is given stays, and no seam is heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl import cli
from ccl.generation import Pipeline
from ccl.generation.conditions import Conditions
from ccl.generation.generate import generate_files
from ccl.generation.given import Media
from ccl.generation.windows import FADE, Windows, crossfaded
from ccl.grid import Grid
from ccl.media import Clip, read_clip, write_png
from ccl.rows import Row, read_rows
from ccl.storage.model_folder import save_model
from ccl.tasks import PAPER_TASKS, Given, Task, Term
from ccl.types import AV, OPEN
from helpers.tiny import PROMPTS, close, tiny_config, tiny_pipeline, tiny_state

FLAT = np.full((16, 16, 3), 60, np.uint8)
LONG = Grid(frames=33, height=16, width=16)


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    pipe = tiny_pipeline()
    pipe.grid = LONG
    return pipe


@pytest.fixture(scope="module")
def clip() -> Clip:
    """0.8 s of noise in pictures and of a tone."""
    pictures = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    return Clip(pictures, (0.3 * np.sin(np.arange(20 * 640) / 9)).astype(np.float32))


# Where windows lie


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.0, 10.0])
def test_windows_share_whole_latent_frames_and_half_of_themselves_at_most(seconds: float) -> None:
    after, before = Windows.sharing(seconds, 500, Grid()), Windows.sharing(max(seconds, 0.16), 500, Grid(), left=True)
    assert after.overlap % 4 == 1 and before.overlap % 4 == 0
    most = min(seconds * 25, 77 / 2)
    assert most - 4 < after.overlap <= most and before.overlap <= max(most, 4)
    assert Windows.sharing(1.0, 7, Grid()).overlap == 5
    with pytest.raises(ValueError, match=r"0.01 s are too short for windows to share; a latent frame takes 0.04 s"):
        Windows.sharing(0.01, 500, Grid())


def test_windows_are_as_many_as_it_takes_and_meet_where_they_say() -> None:
    windows = Windows(Grid(), 25)
    assert windows.new == 52 and [windows.count(77, n) for n in (78, 129, 130)] == [1, 1, 2]
    assert windows.seams(77, 3, 300) == [77, 129, 181]
    assert Windows(Grid(), 24, left=True).seams(50, 2, 120) == [17, 70]  # 53 and 17 new ones, of 53


def test_what_windows_share_is_the_same_moments_of_both(clip: Clip) -> None:
    """A film cut in two windows is the film again."""
    film = AV(clip.video, clip.audio)
    for left in (False, True):
        windows = Windows(Grid(frames=13, height=16, width=16), 8 if left else 9, left)
        there = AV(clip.video[-16:], clip.audio[-16 * 640 :]) if left else AV(clip.video[:16], clip.audio[: 16 * 640])
        window = AV(clip.video[:12], clip.audio[: 12 * 640]) if left else AV(clip.video[7:], clip.audio[7 * 640 :])
        shared = windows.shared(there)
        ends = (slice(4, 12), slice(4 * 640, 12 * 640)) if left else (slice(7, 16), slice(7 * 640, 16 * 640))
        assert np.array_equal(shared.video, clip.video[ends[0]]) and np.array_equal(shared.audio, clip.audio[ends[1]])
        whole = windows.joined(there, window)
        assert np.array_equal(whole.video, film.video)
        np.testing.assert_allclose(whole.audio, film.audio, atol=1e-6)


# A sound that gives way to another


def test_a_sound_gives_way_to_itself_unchanged() -> None:
    sound = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for late in (True, False):
        np.testing.assert_allclose(crossfaded(sound[:700], sound[300:], 400, 100, late=late), sound, atol=1e-6)


@pytest.mark.parametrize("late", [True, False])
def test_sounds_that_have_nothing_in_common_keep_their_loudness(late: bool) -> None:
    rng = np.random.default_rng(0)
    before, after = (rng.normal(size=40_000).astype(np.float32) for _ in range(2))
    mixed = crossfaded(before, after, 30_000, 20_000, late=late)
    start = 20_000 if late else 10_000
    assert np.array_equal(mixed[:start], before[:start]) and np.array_equal(
        mixed[start + 20_000 :], after[start + 10_000 :]
    )
    loudness = mixed[start : start + 20_000].reshape(10, -1).std(1)
    assert np.abs(loudness - 1).max() < 0.1  # with weights that add up to 1 it would be 0.71 in the middle


def test_a_hand_computed_crossfade() -> None:
    before, after = np.array([1, 1, 1], np.float32), np.array([0, 1, 5], np.float32)
    alike = 1 / np.sqrt(2)  # of (1, 1) and (0, 1)
    norm = np.sqrt(0.75**2 + 0.25**2 + 2 * alike * 0.75 * 0.25)
    assert crossfaded(before, after, 2, 2, late=True) == pytest.approx([1, 0.75 / norm, 1 / norm, 5])


def test_there_is_no_click_where_phases_differ() -> None:
    """A tone goes over into the same tone of another phase: no step is larger than the tone's own."""
    t = np.arange(16_000) / 16_000
    for phase in np.linspace(0.1, np.pi - 0.1, 7):
        before, after = (np.sin(2 * np.pi * 200 * t + p).astype(np.float32) for p in (0, phase))
        mixed = crossfaded(before, after, 8000, round(FADE * 16_000), late=True)
        assert np.abs(np.diff(mixed)).max() < 1.2 * np.abs(np.diff(before)).max()


# What is given is held


def test_a_beginning_is_held_as_the_whole_clip_would_be(pipe: Pipeline) -> None:
    """Its latents are those of the clip that it is the beginning of, but for the last sound, which hears what comes."""
    rng = np.random.default_rng(1)
    video = rng.integers(0, 256, (33, 16, 16, 3), dtype=np.uint8)
    audio = rng.normal(size=LONG.samples).astype(np.float32) * 0.1
    conditions: Conditions = pipe.conditions
    like = AV(torch.zeros(1, 16, 9, 2, 2), torch.zeros(1, 40, LONG.t_a))
    held = conditions.held([Media(AV(video[:9], audio[: 9 * 640]))], like, Term(OPEN))
    whole = AV(conditions.encode("video", video), conditions.encode("audio", audio))
    assert held.mask.video.sum() == 3 and held.mask.audio.sum() == int(9 / 25 * 31.25)
    torch.testing.assert_close(held.clean.video[0, :, :3], whole.video[:, :3])
    known = int(held.mask.audio.sum()) - 1
    torch.testing.assert_close(held.clean.audio[0, :, :known], whole.audio[:, :known])


def test_an_end_is_held_as_the_whole_clip_would_be(pipe: Pipeline) -> None:
    rng = np.random.default_rng(2)
    video = rng.integers(0, 256, (33, 16, 16, 3), dtype=np.uint8)
    audio = rng.normal(size=LONG.samples).astype(np.float32) * 0.1
    like = AV(torch.zeros(1, 16, 9, 2, 2), torch.zeros(1, 40, LONG.t_a))
    held = pipe.conditions.held([Media(end=AV(video[-8:], audio[-8 * 640 :]))], like, Term(OPEN))
    whole = AV(pipe.conditions.encode("video", video), pipe.conditions.encode("audio", audio))
    assert held.mask.video[0].tolist() == [False] * 7 + [True] * 2
    assert torch.equal(held.clean.video[0, :, 7:], whole.video[:, 7:])
    latents = int(held.mask.audio.sum())
    assert held.mask.audio[0, -latents:].all() and latents == LONG.ending(8 / 25)[1]
    sure = 1 - latents
    torch.testing.assert_close(held.clean.audio[0, :, sure:-1], whole.audio[:, sure:-1], atol=1e-4, rtol=1e-4)


def test_a_last_picture_fills_the_last_latent_frame(pipe: Pipeline) -> None:
    ends = pipe(PROMPTS[0], image=np.full_like(FLAT, 200), last_image=FLAT, guidance="none")
    assert np.abs(ends.video[0].astype(int) - 200).mean() < 8  # the codec's own error
    assert np.abs(ends.video[-4:].astype(int) - 60).mean() < 15  # and what its neighbours tell the codec
    assert np.abs(ends.video[10].astype(int) - 60).mean() > 20


# Clips


def test_a_clip_goes_on_and_what_was_given_is_unchanged(pipe: Pipeline, clip: Clip) -> None:
    longer = pipe(PROMPTS[0], prefix=clip)
    overlap = 13  # half of a window at most
    assert len(longer.video) == 20 + 33 - overlap and len(longer.audio) == len(longer.video) * 640
    assert np.array_equal(longer.video[:20], clip.video)
    sure = 20 * 640 - round(FADE * 16_000)
    assert np.array_equal(longer.audio[:sure], clip.audio[:sure])
    assert longer.meta["seams"] == [20]
    assert longer.meta["notes"] == ["this model was not trained on a beginning, which is held as a first picture is"]


def test_a_clip_is_led_to_and_what_was_given_is_unchanged(pipe: Pipeline, clip: Clip) -> None:
    longer = pipe(PROMPTS[0], suffix=clip, seconds=2.4)
    assert len(longer.video) == 60 and len(longer.audio) == 60 * 640
    assert np.array_equal(longer.video[-20:], clip.video)
    sure = 20 * 640 - round(FADE * 16_000)
    assert np.array_equal(longer.audio[-sure:], clip.audio[-sure:])
    assert longer.meta["seams"][-1] == 40


def test_a_longer_clip_begins_as_the_short_one(pipe: Pipeline) -> None:
    short, longer = pipe(PROMPTS[0], seed=3), pipe(PROMPTS[0], seed=3, seconds=3.0)
    assert len(longer.video) == 75 and longer.meta["seams"] == [33, 53, 73]
    assert np.array_equal(longer.video[:33], short.video)
    assert not np.array_equal(longer.video[33:53], longer.video[53:73])  # windows have noise of their own


def test_each_window_reads_its_own_prompt(pipe: Pipeline) -> None:
    one, other = PROMPTS[:2]
    same, told, changed = (pipe(one, then=then, seconds=2.6) for then in ((), (one, one), (one, other)))
    _, third = same.meta["seams"]
    assert np.array_equal(same.video, told.video) and np.array_equal(same.audio, told.audio)
    assert np.array_equal(same.video[:third], changed.video[:third])
    assert not np.array_equal(same.video[third:], changed.video[third:])


@pytest.mark.parametrize(("side", "last", "new", "cut"), [("prefix", "last", 20, 12), ("suffix", "first", 17, 10)])
def test_it_is_told_where_a_window_is_cut_that_has_a_prompt_of_its_own(
    pipe: Pipeline, clip: Clip, side: str, last: str, new: int, cut: int
) -> None:
    whole = len(clip.video) + 2 * new
    told = (
        f"{cut / 25:g} of the {new / 25:g} s that the {last} window adds are cut, and what its prompt asks for may lie "
    )
    for frames, notes in (whole, 0), (whole - cut, 1):
        made = pipe(PROMPTS[0], then=[PROMPTS[1]], seconds=frames / 25, steps=2, **{side: clip})
        assert [note for note in made.meta["notes"] if "cut" in note] == [
            f"{told}there; {whole / 25:g} s would keep it whole"
        ] * notes


def test_prompts_of_what_leads_to_a_clip_are_in_order_of_time(pipe: Pipeline, clip: Clip) -> None:
    one, other = PROMPTS[:2]
    same, late = (pipe(one, then=[one, last], suffix=clip, seconds=2.4) for last in (one, other))
    early = pipe(other, then=[one, one], suffix=clip, seconds=2.4)
    first, last, there = same.meta["seams"]
    # The last window in time is made first, and those before it go on from it.
    assert not np.array_equal(same.video[last:there], late.video[last:there])
    assert np.array_equal(same.video[first:], early.video[first:])
    assert not np.array_equal(same.video[:first], early.video[:first])


def test_pictures_are_made_for_a_sound_that_is_longer_than_a_window(pipe: Pipeline) -> None:
    sound = np.random.default_rng(0).normal(size=3 * 16_000).astype(np.float32) * 0.1
    longer = pipe(PROMPTS[0], audio=sound, seconds=2.4, guidance="none")
    assert len(longer.video) == 60 and np.array_equal(longer.audio, sound[: 60 * 640])
    other = sound.copy()
    other[2 * 16_000 :] = 0  # which the last window alone hears
    again = pipe(PROMPTS[0], audio=other, seconds=2.4, guidance="none")
    assert np.array_equal(again.video[:33], longer.video[:33]) and not np.array_equal(again.video, longer.video)


def test_rows_that_go_on_are_the_same_alone_and_in_a_batch(pipe: Pipeline, clip: Clip) -> None:
    shorter = Clip(clip.video[:7], clip.audio[: 7 * 640])
    rows = [Row("a", PROMPTS[0], prefix=clip, seed=1), Row("b", PROMPTS[1], prefix=shorter, seed=2)]
    for row, both in zip(rows, pipe.generate(rows, seconds=2.0), strict=True):
        (alone,) = pipe.generate([row], seconds=2.0)
        assert close(alone, both) and len(alone.video) == 50


def test_windows_share_as_much_as_was_trained(pipe: Pipeline, clip: Clip) -> None:
    part = {name: Given("prefix", prob=0.5, seconds=(0.1, 0.4)) for name in ("video", "audio")}
    own, pipe.tasks = pipe.tasks, {**PAPER_TASKS, "on": Task(1.0, (Term(OPEN, part),))}
    try:
        longer = pipe(PROMPTS[0], prefix=clip)
        assert len(longer.video) == 20 + 33 - 9 and "notes" not in longer.meta
        assert len(pipe(PROMPTS[0], prefix=clip, overlap=0.2).video) == 20 + 33 - 5
    finally:
        pipe.tasks = own


def test_progress_counts_the_steps_of_all_windows(pipe: Pipeline) -> None:
    calls: list[tuple[int, int]] = []
    pipe(PROMPTS[0], seconds=2.0, steps=2, progress=lambda *of: calls.append(of))
    assert calls == [(i, 4) for i in range(1, 5)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seconds": 1.0}, r"seconds is 1; clips of this model last 1.32 s at least"),
        ({"seconds": 1e6}, r"seconds is 1000000.0; it must be a number from 0 to 600"),
        ({"seconds": 3.0, "last_image": FLAT}, "a last image is given; that goes with clips of one window, of 1.32 s"),
        ({"prefix": "CLIP", "seconds": 0.5}, r"clip-0000: the given clip lasts 0.80 s, and 0.48 s were asked for in"),
        ({"prefix": "CLIP", "image": FLAT}, "a first image and a clip to go on from are both given; give one of them"),
        ({"prefix": "CLIP", "suffix": "CLIP"}, "a clip to lead to and a clip to go on from are both given"),
        ({"prefix": "CLIP", "audio": np.zeros(99, np.float32)}, "a clip to go on from and a whole sound are both"),
        ({"prefix": "CLIP", "overlap": 0.01}, "0.01 s are too short for windows to share"),
        ({"prefix": Clip(None, np.zeros(16_000, np.float32))}, "the clip has no video"),
        ({"prefix": Clip(None, None, fps=30.0)}, "the clip has 30 pictures and 16,000 samples a second; this model"),
        ({"prefix": "no-such.mp4"}, "no-such.mp4"),
        ({"then": ["a"]}, "clip-0000: 2 prompts are given for one window; give one for each, or one for all"),
        ({"then": ["a"] * 4, "seconds": 2.6}, "clip-0000: 5 prompts are given for 3 windows; give one for each"),
        ({"then": "a"}, r"then of rows\[0\] is 'a'; it must be a list of prompts"),
        ({"suffix": 3}, "the clip is 3; it must be the path of a clip, or a ccl.media.Clip"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(pipe: Pipeline, clip: Clip, given: dict[str, Any], words: str) -> None:
    given = {key: clip if isinstance(value, str) and value == "CLIP" else value for key, value in given.items()}
    with pytest.raises(ValueError, match=words):
        pipe(PROMPTS[0], **given)


# Files


def test_a_file_goes_on_as_its_clip_does(pipe: Pipeline, clip: Clip, tmp_path: Path) -> None:
    clip.save(tmp_path / "a.mp4")
    (tmp_path / "rows.jsonl").write_text('{"id": "x", "prompt": "a", "prefix": "a.mp4"}\n')
    rows = read_rows(tmp_path / "rows.jsonl")
    (path,) = generate_files(pipe, rows, tmp_path / "out", seconds=1.6, guidance="none", steps=1)
    longer, again = read_clip(path), read_clip(tmp_path / "a.mp4")
    assert len(longer.video) == 40 and longer.audio is not None and again.video is not None
    assert np.abs(longer.video[:20].astype(int) - again.video.astype(int)).mean() < 6  # coded twice
    assert '"seams": [\n  20\n ]' in path.with_suffix(".json").read_text()
    with pytest.raises(ValueError, match="was made with another seconds"):
        generate_files(pipe, rows, tmp_path / "out", seconds=1.7, guidance="none", steps=1)


def test_the_command_line_goes_on_from_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str], clip: Clip) -> None:
    save_model(tmp_path / "model", tiny_config(), tiny_state())
    clip.save(tmp_path / "a.mp4")
    write_png(tmp_path / "b.png", np.zeros((16, 16, 3), np.uint8))
    asked = [
        "generate",
        "--ckpt",
        str(tmp_path / "model"),
        "--prompt",
        "a",
        "--steps",
        "1",
        "-o",
        str(tmp_path / "o.mp4"),
    ]
    assert cli.main([*asked, "--continue", str(tmp_path / "a.mp4"), "--seconds", "1"]) == 0
    assert "not trained on a beginning" in capsys.readouterr().err
    assert len(read_clip(tmp_path / "o.mp4").video) == 25
    assert cli.main([*asked, "--last-image", str(tmp_path / "b.png"), "--precede", str(tmp_path / "a.mp4")]) == 1
    assert "a last image and a clip to lead to are both given" in capsys.readouterr().err
    assert cli.main([*asked, "--continue", str(tmp_path / "none.mp4")]) == 2
    assert "there is no --continue file" in capsys.readouterr().err
