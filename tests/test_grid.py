"""Lengths of a clip, and a count of audio latents that is given: every length that follows goes with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ccl.codecs.base import Codec
from ccl.data.bucketed import Buckets, of_bucket
from ccl.data.encode import encode_shards
from ccl.data.shards import Shards, collate
from ccl.data.write import write_shards
from ccl.generation import Pipeline
from ccl.grid import Grid
from ccl.interaction.align import TARP, audio_positions
from ccl.planning.follow import inputs
from ccl.training.module import JointDiffusion, TrainingError
from ccl.types import AV
from helpers.fakes import GRID, make_codec, make_net, make_text
from helpers.tiny_clips import tiny_sources
from helpers.tiny_encoders import MeanAudio, MeanVideo

OVI = Grid(241, 24.0, 352, 640, stride_space=16, audio_latents=314)
MORE = replace(GRID, audio_latents=12)  # 0.36 s, 11.25 latents


@pytest.mark.parametrize(("frames", "given", "count"), [(121, 157, 157), (241, 314, 314), (241, None, 313)])
def test_ovis_counts_can_be_said(frames: int, given: int | None, count: int) -> None:
    grid = Grid(frames, 24.0, audio_latents=given)
    assert grid.t_a == count and grid.c == count // grid.t_v
    assert grid.samples == round(frames / 24 * 16_000)  # the sound is as long as the pictures


def test_positions_and_windows_go_with_the_count() -> None:
    assert OVI.t_v == 61 and OVI.c == 5
    assert audio_positions(OVI).tolist() == pytest.approx([j * 61 / 314 for j in range(314)])
    keys, inside = TARP().windows(OVI)
    assert keys.shape == (61, 15) and int(keys.max()) < 314 and bool(inside.any(1).all())
    groups = TARP("proportional").groups(OVI)
    assert len(groups.v2a.back) == 314 and TARP("proportional").report(OVI).unattended == ()


def test_a_count_of_another_length_is_refused() -> None:
    for wrong in (157, 321, 0):
        with pytest.raises(ValueError, match=rf"grid\.audio_latents is {wrong}; 241 frames at 24 fps are 313\.80 at"):
            replace(OVI, audio_latents=wrong)
    with pytest.raises(ValueError, match="at least one audio token a frame"):
        Grid(9, 125.0, audio_latents=2)


def test_another_length_has_its_own_count() -> None:
    assert OVI.resized(frames=121).t_a == 157 and OVI.resized(frames=121).audio_latents is None
    assert OVI.resized(height=320).t_a == 314
    assert OVI.resized(frames=121, audio_latents=158).t_a == 158


def test_network_and_plan_take_the_count() -> None:
    net = make_net()
    x, t, text = inputs(net, MORE, 2, 5)
    assert x.audio.shape == (2, 6, 12)
    zeros = x.map(torch.zeros_like)
    assert net(zeros, t.map(torch.zeros_like), torch.zeros_like(text), grid=MORE).velocity.audio.shape == (2, 6, 12)
    with pytest.raises(ValueError, match=r"audio .*\(6, 12\)"):
        net(zeros, t.map(torch.zeros_like), torch.zeros_like(text), grid=GRID)


@pytest.mark.parametrize(
    ("grid", "channels", "said"),
    [
        ({"sample_rate": 44_100}, AV(4, 6), "grid.sample_rate is 44100, and the audio codec has 16000"),
        ({"latent_rate": 43.07}, AV(4, 6), "grid.latent_rate is 43.07, and the audio codec has 31.25"),
        ({"stride_time": 8}, AV(4, 6), "grid.stride_time is 8, and the video codec has 4"),
        ({}, AV(16, 6), "the network's video stream has 16 channels, and the video codec has 4"),
        ({}, AV(4, 20), "the network's audio stream has 20 channels, and the audio codec has 6"),
    ],
)
def test_a_codec_of_other_latents_is_refused_before_a_clip(grid: dict[str, float], channels: AV, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_codec().check(replace(GRID, **grid), channels)
    make_codec().check(replace(GRID, latent_rate=31.26), AV(4, 6))
    make_codec().check(replace(GRID, sample_rate=44_100), AV(4, None))  # a network without that stream
    if channels == AV(4, 6):
        module = JointDiffusion(make_net, make_text, make_codec(), replace(GRID, **grid))
        with pytest.raises(TrainingError, match=said):
            module.configure_model()


def test_codecs_and_the_pipeline_take_the_count() -> None:
    pipe = Pipeline(make_net(), make_text(), make_codec(), MORE, steps=1)
    clip = pipe("a man")
    assert len(clip.audio) == 5760 == MORE.samples
    clip = pipe("a man", audio=clip.audio)
    z = make_codec().audio.encode(torch.ones(1, 5760), MORE.t_a)
    assert z.shape == (1, 6, 12) and float(z[0, 0, 10]) == 1.0 and float(z[0, 0, 11]) == 0.0


def test_latents_are_those_of_a_count_and_say_so(tmp_path: Path) -> None:
    write_shards(tiny_sources(2, MORE), tmp_path / "clips", MORE)
    codec = Codec(MeanVideo(), MeanAudio())
    for name, grid in (("more", MORE), ("usual", GRID), ("same", replace(GRID, audio_latents=11))):
        encode_shards(tmp_path / "clips", tmp_path / name, codec, grid)
    batch = collate(list(Shards(tmp_path / "more", MORE, shuffle=0, endless=False)))
    assert batch.latents.audio.shape[-1] == 12
    Shards(tmp_path / "same", GRID, shuffle=0, endless=False)  # 11 is the usual count
    with pytest.raises(ValueError, match=r"have grid\.audio_latents 12, .*train with --grid\.audio_latents 12"):
        Shards(tmp_path / "more", GRID, shuffle=0, endless=False)
    with pytest.raises(ValueError, match=r"have grid\.audio_latents null, .*train with --grid\.audio_latents null"):
        Shards(tmp_path / "usual", MORE, shuffle=0, endless=False)


def test_a_bucket_has_the_model_s_count_where_it_is_as_long(tmp_path: Path) -> None:
    longer = MORE.resized(frames=13)
    grids = [MORE, longer]
    sources = [source for grid in grids for source in tiny_sources(2, grid)]
    for i, source in enumerate(sources):
        object.__setattr__(source, "id", f"clip-{i}")
    write_shards(sources, tmp_path / "b", grids)
    names = sorted(path.name for path in (tmp_path / "b").iterdir() if path.is_dir())
    assert {name: of_bucket(tmp_path / "b" / name, MORE).t_a for name in names} == {"9x16x16": 12, "13x16x16": 16}
    sample = next(iter(Buckets(tmp_path / "b", ["13x16x16"], MORE, 1, options={"shuffle": 0})))
    assert replace(MORE, **collate(sample).grid).t_a == longer.t_a == 16
