"""Loudness against the standard's own numbers and ffmpeg's ebur128; peaks between samples, clipping, silence."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from ccl.evaluation.dsp.loudness import ABSOLUTE, QUIETEST, block_powers, integrated, k_weighting, true_peak
from ccl.evaluation.metrics import LUFS
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.media import Clip, MediaError, read_channels
from helpers.films import sound as save

RATE = 48_000


def tone(decibels: float, hertz: float = 997.0, seconds: float = 5.0, rate: int = RATE) -> np.ndarray:
    """A sine whose peaks are so many dB below full scale."""
    return 10 ** (decibels / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def values(*clips: Clip | Path, **settings: float) -> list[dict[str, float]]:
    results = LUFS(**settings).score(clips)
    assert all(isinstance(result, Measured) for result in results), results
    return [result.values for result in results if isinstance(result, Measured)]


def of(sound: np.ndarray, rate: int = RATE) -> Clip:
    return Clip(None, sound.astype(np.float32), sample_rate=rate)


def ebur128(path: Path) -> tuple[float, float]:
    """LUFS and true peak in dB, as ffmpeg's own filter has them of a file."""
    said: dict[str, str] = {}
    with av.open(str(path)) as container:
        stream, graph = container.streams.audio[0], av.filter.Graph()
        nodes = [graph.add_abuffer(template=stream), graph.add("ebur128", "metadata=1:peak=true")]
        nodes.append(graph.add("abuffersink"))
        for one, next in pairwise(nodes):
            one.link_to(next)
        graph.configure()
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            while True:
                try:
                    said.update(graph.pull().metadata)
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    return float(said["lavfi.r128.I"]), 20 * math.log10(float(said["lavfi.r128.true_peak"]))


def test_the_filters_are_those_that_the_standard_prints_for_48_khz():
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]
    np.testing.assert_allclose(k_weighting(RATE), [shelf, high_pass], atol=1e-8)


@pytest.mark.parametrize("rate", [16_000, 44_100, RATE])
def test_a_sine_at_full_scale_in_one_channel_has_3_lufs_below_zero(rate):
    assert integrated(tone(0, rate=rate)[None], rate) == pytest.approx(-3.01, abs=0.05)


def test_the_cases_of_ebu_tech_3341_shorter_have_their_loudness():
    def joined(*parts: tuple[float, float]) -> float:
        one = np.concatenate([tone(level, 1000, seconds) for level, seconds in parts])
        return integrated(np.stack([one, one]), RATE)

    assert joined((-23, 4)) == pytest.approx(-23, abs=0.1)
    assert joined((-33, 4)) == pytest.approx(-33, abs=0.1)
    assert joined((-36, 2), (-23, 12), (-36, 2)) == pytest.approx(-23, abs=0.1)  # case 3: the gate below the mean
    # Case 4: both gates.
    assert joined((-72, 2), (-36, 2), (-23, 12), (-36, 2), (-72, 2)) == pytest.approx(-23, abs=0.1)


def test_channels_behind_count_more_and_the_subwoofer_not_at_all():
    one = tone(-23)[None]
    front = integrated(np.repeat(one, 2, 0), RATE, ("FL", "FR"))
    assert integrated(one, RATE) == pytest.approx(front - 3.01, abs=0.01)
    assert integrated(np.repeat(one, 2, 0), RATE, ("SL", "BR")) == pytest.approx(front + 1.49, abs=0.01)
    assert integrated(np.repeat(one, 3, 0), RATE, ("FL", "FR", "LFE")) == pytest.approx(front, abs=1e-9)


def test_block_powers_are_those_of_a_naive_loop():
    sound = np.random.default_rng(0).standard_normal((2, 9_999))
    blocks = [sound[:, at : at + 3200] for at in range(0, 9_999, 800)]
    naive = np.stack([(block**2).mean(1) for block in blocks if block.shape[1] == 3200], 1)
    np.testing.assert_allclose(block_powers(sound, 8_000), naive, rtol=1e-9)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("rate", [16_000, 44_100, RATE])
def test_files_are_as_loud_as_ffmpeg_says(layout, rate, tmp_path):
    rng, count = np.random.default_rng(0), {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    seconds = np.arange(4 * rate) / rate
    loud = 10 ** np.interp(seconds, range(5), [-0.3, -2.5, -1.5, -0.3, -1])[:, None]  # in part below a gate
    noise = np.convolve(rng.standard_normal(len(seconds)), np.hanning(16) / 8, "same")[:, None]
    file = save(
        tmp_path / "noise.wav",
        np.clip(loud * np.roll(noise, rng.integers(count)) / 2, -1, 1) * np.ones(count),
        layout,
        rate,
    )
    sound, read_rate, names = read_channels(file)
    lufs, peak = ebur128(file)
    assert read_rate == rate and len(names) == count
    assert integrated(sound, rate, names) == pytest.approx(lufs, abs=0.02)
    assert true_peak(sound, rate) == pytest.approx(peak, abs=0.15)


def test_real_clips_are_as_loud_as_ffmpeg_says():
    data = os.environ.get("CCL_TEST_DATA")
    if data is None:
        pytest.skip("CCL_TEST_DATA is not set: no real clips")
    for name in ("jfk.flac", "condfoley_hitting_bag.mp4", "versebench_syncnet_1.mp4"):
        sound, rate, names = read_channels(file := Path(data) / "clips" / name)
        lufs, peak = ebur128(file)
        assert integrated(sound, rate, names) == pytest.approx(lufs, abs=0.02)
        assert true_peak(sound, rate) == pytest.approx(peak, abs=0.15)


def test_a_peak_between_two_samples_is_found():
    # A quarter of the rate, 45 degrees off: every sample is 3.01 dB below the peak.
    wave = np.sin(np.pi / 2 * np.arange(RATE) + np.pi / 4)[None]
    assert 20 * np.log10(np.abs(wave).max()) == pytest.approx(-3.01, abs=0.01)
    assert true_peak(wave, RATE) == pytest.approx(0, abs=0.2)


def test_a_louder_sound_is_louder_by_as_much_until_it_clips():
    quiet, louder, clipped = values(of(tone(-20)), of(tone(-10)), of(np.clip(10 * tone(-10), -1, 1)))
    assert louder["lufs"] - quiet["lufs"] == pytest.approx(10, abs=0.01)
    assert louder["true_peak"] - quiet["true_peak"] == pytest.approx(10, abs=0.01)
    assert quiet["clipped"] == louder["clipped"] == 0 and clipped["clipped"] > 0.5


def test_silence_has_the_lowest_numbers_and_is_all_silent():
    [silent] = values(of(np.zeros(RATE)))
    assert silent == {"lufs": ABSOLUTE, "true_peak": QUIETEST, "clipped": 0, "silent": 1}


def test_the_share_of_silence_is_that_of_its_tenths_of_a_second():
    sound = tone(-20, seconds=2)
    sound[: RATE // 2] = 0
    sound[RATE // 2 : RATE] *= 0.001  # 80 dB down
    assert values(of(sound))[0]["silent"] == 0.5
    assert values(of(sound), silence=-100.0)[0]["silent"] == 0.25


def test_one_channel_may_count_as_two():
    once, twice = values(of(tone(-20)))[0], values(of(tone(-20)), dual_mono=True)[0]
    assert twice["lufs"] - once["lufs"] == pytest.approx(3.01, abs=0.01)
    assert twice["true_peak"] == once["true_peak"]


def test_a_file_is_measured_in_its_own_channels(tmp_path):
    rng = np.random.default_rng(0)
    file = save(tmp_path / "wide.wav", rng.uniform(-0.3, 0.3, (RATE, 2)), "stereo", RATE)
    [wide], [mixed] = values(file), values(of(read_channels(file)[0].mean(0)))
    assert wide["lufs"] - mixed["lufs"] == pytest.approx(6.02, abs=0.1)  # two alike, of which a mix loses half


def test_what_cannot_be_measured_has_a_reason(tmp_path):
    short, narrow, mute = LUFS().score([of(tone(-20, seconds=0.3)), of(tone(-20, rate=4_000), 4_000), Clip(None, None)])
    assert short == Failed("the sound lasts 0.30 s; loudness needs 0.4 s")
    assert narrow == Failed("the sound has 4,000 samples a second; loudness needs 8,000")
    assert mute == Failed("no audio stream")
    with pytest.raises(MediaError, match="no such file"):
        read_channels(tmp_path / "none.wav")
    with pytest.raises(ValueError, match=r"full_scale is 0\.0"):
        LUFS(full_scale=0.0)
