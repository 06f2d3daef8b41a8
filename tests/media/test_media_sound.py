"""Files as cameras, browsers, recorders and cutters leave them: their sound.

The given cases come from public reports; each has siblings that are built here. Right values are those of ffmpeg, of
the file's own tables, or written out.
"""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.wer import WER
from ccl.media import MediaError, read_audio, read_natural
from ccl.media.sound import weights
from ccl.rows import Row
from helpers.films import CASES, DATA, beeps, needs_cases, pitch, refusal, sound, tone

# Sound ---------------------------------------------------------------------------------------------------------------


@needs_cases
def test_each_block_of_sound_is_read_at_its_own_rate():
    clip = read_natural(CASES / "rate.mp3")[0]
    heard = [pitch(clip.audio, clip.sample_rate, at) for at in beeps(clip.audio, clip.sample_rate)]
    assert len(heard) == 7 and heard == pytest.approx([1000] * 7, abs=15)


JOINED = [
    ("mp3", "libmp3lame", (24_000, 48_000)),
    ("mp3", "libmp3lame", (48_000, 16_000)),
    # Whose demuxers count all blocks in the first one's rate: up to twice as fast or slow, or by a twelfth.
    ("aac", "aac", (24_000, 48_000)),
    ("aac", "aac", (48_000, 24_000)),
    ("aac", "aac", (44_100, 48_000)),
    ("aac", "aac", (48_000, 24_000, 48_000)),
    ("ogg", "flac", (44_100, 48_000)),
]


@pytest.mark.parametrize(("kind", "codec", "rates"), JOINED)
def test_joined_sounds_of_several_rates_keep_pitch_and_length(kind, codec, rates, tmp_path):
    whole = b"".join(
        sound(tmp_path / f"{rate}.{kind}", tone(1000, 2, rate)[:, None], rate=rate, codec=codec).read_bytes()
        for rate in rates
    )
    (tmp_path / f"joined.{kind}").write_bytes(whole)  # an mp3 with the tags of the second one in its middle
    clip = read_natural(tmp_path / f"joined.{kind}")[0]
    seconds = 2 * len(rates)
    assert clip.sample_rate == max(rates) and len(clip.audio) / clip.sample_rate == pytest.approx(seconds, abs=0.15)
    heard = [pitch(clip.audio, clip.sample_rate, at + 0.5) for at in range(seconds)]
    assert heard == pytest.approx([1000] * seconds, abs=2)
    blocks = np.abs(clip.audio[: len(clip.audio) // 100 * 100].reshape(-1, 100)).max(1)
    assert (blocks < 0.01).mean() < 0.03  # no gap but the encoders' own, at the joints


def test_a_joined_sound_may_lie_in_another_container_since(tmp_path):
    parts = [sound(tmp_path / f"{n}.mp3", tone(1000, 1)[:, None], codec="libmp3lame").read_bytes() for n in (0, 1)]
    (tmp_path / "joined.mp3").write_bytes(b"".join(parts))
    with av.open(str(tmp_path / "joined.mp3")) as given, av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream_from_template(given.streams.audio[0])
        tags = 0
        for packet in given.demux(audio=0):
            if packet.dts is not None:
                tags += bytes(packet)[0] != 0xFF
                packet.stream = stream
                container.mux(packet)
    assert tags == 1
    audio = read_audio(tmp_path / "a.mkv", 48_000)
    assert len(audio) / 48_000 == pytest.approx(2, abs=0.15) and pitch(audio, 48_000, 1.5) == pytest.approx(1000, abs=2)


@needs_cases
def test_whisper_reads_a_speech_whose_rate_changes_midway():
    said = (
        "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
    )
    wer = WER(str(DATA / "weights" / "whisper-tiny.en.pt"))
    assert wer.score([Film.read(CASES / "rate_speech.mkv", Row("a", said, speech=said))])[0].values["wer"] == 0


@needs_cases
def test_speech_in_the_centre_of_5_1_is_as_loud_as_ffmpegs_mix():
    audio = read_natural(CASES / "fc51.m4a")[0].audio[int(1.01 * 48_000) : int(1.09 * 48_000)]
    assert 20 * np.log10(np.sqrt((audio**2).mean()) / 0.3535) == pytest.approx(-10.7, abs=0.3)


# ITU-R BS.775 as ffmpeg's -ac 1 has it: centre 1, sides and backs less 3 dB each; divided by their sum. No LFE.
HALF = 2**-0.5
MIXES = {
    "stereo": [HALF, HALF],
    "3.0": [HALF, HALF, 1],
    "quad": [HALF, HALF, 0.5, 0.5],
    "5.1": [HALF, HALF, 1, 0, 0.5, 0.5],
    "5.1(side)": [HALF, HALF, 1, 0, 0.5, 0.5],
    "7.1": [HALF, HALF, 1, 0, 0.5, 0.5, 0.5, 0.5],
}


@pytest.mark.parametrize("layout", MIXES)
def test_channels_are_mixed_with_their_weights(layout, tmp_path):
    expected = np.array(MIXES[layout]) / sum(MIXES[layout])
    np.testing.assert_allclose(weights(layout, len(expected)), expected, atol=1e-6)
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (4800, len(expected)))
    mixed = read_audio(sound(tmp_path / "a.wav", channels, layout), 48_000)
    np.testing.assert_allclose(mixed, channels @ expected, atol=1e-4)


def test_eight_channels_in_planes_are_read(tmp_path):
    centre = np.zeros((48_000, 8))
    centre[:, 2] = tone(440)
    audio = read_audio(sound(tmp_path / "a.m4a", centre, "7.1", codec="aac"), 48_000)
    assert np.sqrt((audio[9600:38_400] ** 2).mean()) == pytest.approx(0.3535 * weights("7.1", 8)[2], rel=0.03)


def test_stereo_in_antiphase_is_a_reason_and_wide_stereo_is_not(tmp_path):
    left = tone(440)
    assert "antiphase" in refusal(sound(tmp_path / "a.wav", np.stack([left, -0.9 * left], 1), "stereo"))
    for name, right in {"b": 0 * left, "c": tone(660), "d": left}.items():
        assert read_audio(sound(tmp_path / f"{name}.wav", np.stack([left, right], 1), "stereo")).any()


@pytest.mark.parametrize("anti", [slice(0, 48_000), slice(72_000, 144_000)])
def test_a_second_of_antiphase_is_a_reason(anti, tmp_path):
    left = tone(440, 3)
    right, quiet = left.copy(), np.ones_like(left)
    right[anti] *= -1
    assert "antiphase" in refusal(sound(tmp_path / "a.wav", np.stack([left, right], 1), "stereo"))
    quiet[anti] = 0.1  # a hundredth of the power: a room's noise may have any phase
    read_audio(sound(tmp_path / "b.wav", np.stack([left, right], 1) * quiet[:, None], "stereo"))


@pytest.mark.parametrize("rate", [1, 100_000_000, 2**31 - 1])
def test_absurd_sample_rates_are_refused(rate, tmp_path):
    path = sound(tmp_path / "a.wav", tone(440)[:, None])
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    assert f"{rate:,} samples a second" in refusal(path) or "corrupt" in refusal(path)
    with pytest.raises(MediaError):
        read_audio(path)


# Streams -------------------------------------------------------------------------------------------------------------


@needs_cases
def test_the_default_sound_track_is_read():
    clip = read_natural(CASES / "two.mkv")[0]
    assert len(beeps(clip.audio, clip.sample_rate)) == 7


@pytest.mark.parametrize("flagged", [0, 1])
def test_the_track_with_the_default_flag_is_read(flagged, tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        for index, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if index == flagged else 0
        for stream, hertz in zip(streams, (500, 1500), strict=True):
            data = np.round(32767 * tone(hertz, rate=16_000)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert pitch(read_audio(tmp_path / "a.mkv"), 16_000, 0.4) == pytest.approx((500, 1500)[flagged], abs=2)
