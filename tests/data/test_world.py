"""The embedded talking world: deterministic, honest in its lips, fair in its splits."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from importlib.resources import files

import numpy as np
import pytest

from ccl.data import make
from ccl.data.make import world_version
from ccl.data.world import World
from ccl.data.world import voice as voices
from ccl.data.world.lips import lips, shape
from ccl.data.world.scene import bounce
from ccl.data.world.script import looks, sentences, vocabulary
from ccl.data.world.testset import write_testset
from ccl.data.world.voice import PITCHES, RATES, VOICES, Voice, say
from ccl.data.world.world import MARGIN, TEST_PAIRS
from ccl.grid import Grid
from helpers import ROOT
from helpers.forked import call
from helpers.worlds import digest, digest_of

WORLD = World()
TEST = World(split="test")
A = ("we can see the river", Voice(VOICES["woman"][0], 60, 150))
B = ("please open the door", Voice(VOICES["man"][-1], 30, 165))


def same(a, b) -> bool:
    return np.array_equal(a.audio, b.audio) and np.array_equal(a.video, b.video) and a.prompt == b.prompt


def test_speech_does_not_depend_on_what_was_said_before():
    first = say(*A)
    other = say(*B)
    again, other_again = say(*A), say(*B)
    assert np.array_equal(first.audio, again.audio) and first.phonemes == again.phonemes
    assert np.array_equal(other.audio, other_again.audio)


def test_a_clip_is_the_same_in_a_fresh_process():
    WORLD.clip(3)
    assert digest(WORLD.clip(7)) == call(digest_of, 7)


@pytest.mark.parametrize("grid", [Grid(), Grid(height=32, width=64), Grid(frames=49, fps=16.0, height=64, width=48)])
def test_a_clip_has_the_shape_of_its_grid(grid):
    for index in range(6):
        clip = World(grid=grid).clip(index)
        assert clip.video.shape == (grid.frames, grid.height, grid.width, 3) and clip.video.dtype == np.uint8
        assert clip.audio.shape == (grid.samples,) and clip.audio.dtype == np.float32
        assert np.abs(clip.audio).max() <= 0.95


def test_speech_is_never_cut_and_begins_at_many_times():
    room, onsets = [], []
    for index in range(30):
        if WORLD.subset(index) == "event":
            continue
        line, clip = WORLD.line(index), WORLD.clip(index)
        first = round(line.onset * 16_000)
        assert np.array_equal(clip.audio[first : first + len(line.speech.audio)], line.speech.audio)
        assert line.onset + line.speech.seconds <= WORLD.grid.seconds - MARGIN + 1e-6
        room.append(WORLD.grid.seconds - line.speech.seconds)
        onsets.append(line.onset)
    assert min(room) > 0.4, "every sentence fits with room to spare"
    assert np.std(onsets) > 0.25


def test_the_longest_sentences_in_the_slowest_voices_fit():
    longest = sorted(sentences("train") + sentences("test"), key=len)[-8:]
    slowest = (
        Voice(name, pitches[0], RATES[0]) for names in VOICES.values() for name in names for pitches in [PITCHES["low"]]
    )
    seconds = [say(sentence, voice).seconds for voice in slowest for sentence in longest]
    assert max(seconds) < Grid().seconds - 2 * MARGIN - 0.25


def test_splits_share_no_sentence_and_no_look_but_all_words_and_colours():
    assert not set(sentences("train")) & set(sentences("test"))
    assert not set(looks("train")) & set(looks("test"))
    words = {word for sentence in sentences("train") for word in sentence.split()}
    assert words == set(vocabulary()), "training sees every word"
    assert 50 <= len(words) <= 70
    assert all(3 <= len(sentence.split()) <= 8 for split in ("train", "test") for sentence in sentences(split))
    for place in range(4):
        assert {look[place] for look in looks("test")} <= {look[place] for look in looks("train")}


def test_clips_keep_to_their_split():
    for index in range(20):
        meta = WORLD.clip(index).meta
        if meta["subset"] != "event":
            assert meta["sentence"] in sentences("train")
            assert (meta["gender"], meta["hair"], meta["shirt"], meta["wall"]) in looks("train")
    for index in (0, 5, 150):
        assert TEST.clip(index).meta["sentence"] in sentences("test")


def test_test_clips_come_in_pairs_that_sound_alike():
    for index in (0, 42, 99):
        easy, hard = TEST.clip(index), TEST.clip(index + TEST_PAIRS)
        assert (easy.meta["subset"], hard.meta["subset"]) == ("easy", "hard")
        assert np.array_equal(easy.audio, hard.audio)
        assert easy.meta["sentence"] == hard.meta["sentence"] and easy.meta["gender"] == hard.meta["gender"]
        assert not np.array_equal(easy.video, hard.video)
        assert "motion" in hard.meta and hard.meta["motion"] in hard.prompt


def test_training_mixes_half_portraits_a_third_figures_and_some_events():
    share = {name: np.mean([WORLD.subset(i) == name for i in range(2000)]) for name in ("easy", "hard", "event")}
    assert abs(share["easy"] - 0.5) < 0.04 and abs(share["hard"] - 0.35) < 0.04 and abs(share["event"] - 0.15) < 0.03


def test_the_prompt_tells_what_is_seen_and_heard():
    for index in range(20):
        clip = WORLD.clip(index)
        meta, prompt = clip.meta, clip.prompt
        if meta["subset"] == "event":
            assert '"' not in prompt and meta["kind"] in prompt and meta["colour"] in prompt
            continue
        assert f'"{meta["sentence"]}"' in prompt
        assert f"A {meta['gender']} with {meta['hair']} hair and a {meta['shirt']} shirt" in prompt
        assert f"in a {meta['pitch']} voice" in prompt and meta["wall"] in prompt
        assert meta["voice"] in VOICES[meta["gender"]]


def test_a_high_voice_is_higher_than_a_low_one():
    for names in VOICES.values():
        for name in names:
            low, high = (
                pitch_of(say(A[0], Voice(name, round(np.mean(PITCHES[p])), 150)).audio) for p in ("low", "high")
            )
            assert high > 1.15 * low


def pitch_of(audio: np.ndarray) -> float:
    """Median fundamental in Hz by autocorrelation of loud pieces."""
    found = []
    for start in range(0, len(audio) - 1024, 512):
        piece = audio[start : start + 1024].astype(float)
        if piece.std() < 0.08:
            continue
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(1024), 4096)) ** 2
        lag = np.fft.irfft(spectrum)[: 16_000 // 60]
        found.append(16_000 / (40 + np.argmax(lag[40:])))
    return float(np.median(found))


def test_other_seeds_and_splits_give_other_clips():
    assert not same(WORLD.clip(1), World(seed=1).clip(1))
    assert WORLD.clip(1).id != World(seed=1).clip(1).id != World(split="test").clip(1).id


def test_lips_close_for_m_and_open_for_vowels():
    assert shape("m")[0] == shape("_:")[0] == 0
    assert shape("'a")[0] > shape("i:")[0] > shape("s")[0] > 0
    speech = say("my mother", A[1])
    curve = lips(speech, 0.5, 50, 25.0)[:, 0]
    assert curve[:11].max() < 0.02, "closed before the first word"
    vowels = [p for p in speech.phonemes if shape(p.name)[2] and p.end - p.start > 0.08]
    closed = [p for p in speech.phonemes if p.name == "m"]
    at = lambda p: curve[int((0.5 + (p.start + p.end) / 2) * 25)]  # noqa: E731
    assert min(map(at, vowels)) > max(map(at, closed))


def test_lips_follow_the_loudness_of_the_sound():
    for index in range(4):
        line = TEST.line(index)
        curve = lips(line.speech, 0.0, 77, 25.0)[:, 0]
        audio = np.pad(line.speech.audio, (0, 77 * 640))[: 77 * 640].reshape(77, 640)
        assert np.corrcoef(curve, np.sqrt((audio**2).mean(1)))[0, 1] > 0.75


def test_phonemes_are_in_order_and_cover_the_speech():
    speech = say(*A)
    assert speech.phonemes[0].start == 0 and abs(speech.phonemes[-1].end - speech.seconds) < 1e-3
    assert all(a.end == b.start for a, b in zip(speech.phonemes, speech.phonemes[1:], strict=False))
    assert len(speech.phonemes) > 10


def test_an_event_sounds_when_it_is_seen():
    checked = set()
    for index in range(200):
        if WORLD.subset(index) != "event" or len(checked) == 3:
            continue
        clip = WORLD.clip(index)
        checked.add(clip.meta["kind"])
        for time in clip.meta["times"][:1]:
            first = int(time * 16_000)
            assert np.abs(clip.audio[: first - 1]).max(initial=0) < 0.01 < np.abs(clip.audio[first : first + 400]).max()
    assert checked == {"ball", "drum", "bell"}


def test_a_ball_touches_the_floor_when_it_lands_and_never_sinks_into_it():
    times = np.array([1.0, 1.45, 1.7])
    assert np.allclose(bounce(times, times), 0)
    assert bounce(np.linspace(0, 3, 500), times).min() >= 0 < bounce(np.array([0.0]), times)[0]


def test_sources_are_lazy_numbered_and_pickle():
    sources = list(WORLD.sources(3, start=10))
    assert [source.id for source in sources] == [WORLD.id(index) for index in (10, 11, 12)]
    copy = pickle.loads(pickle.dumps(sources[1]))
    assert copy.id == sources[1].id == copy.load().id and same(copy.load(), WORLD.clip(11))


def test_the_test_split_has_two_hundred_clips_and_training_no_end():
    assert len(TEST) == 200
    with pytest.raises(ValueError, match="test split has no clip 200"):
        TEST.clip(200)
    with pytest.raises(TypeError, match="no end"):
        len(WORLD)


def test_a_clip_too_short_for_speech_says_so():
    with pytest.raises(ValueError, match=r"no sentence of the world fits in a clip of 0.36 s"):
        World(grid=Grid(frames=9), split="test").clip(0)


def test_worlds_that_are_drawn_or_coded_otherwise_are_other_worlds(tmp_path, monkeypatch):
    sources = {name: tmp_path / name for name in ("ccl.data.world", "ccl.media")}
    for name, copy in sources.items():
        shutil.copytree(files(name), copy, ignore=shutil.ignore_patterns("__pycache__"))
    versions = {world_version()}
    monkeypatch.setattr(make, "files", sources.__getitem__)
    (tmp_path / "ccl.data.world/faces.py").write_text("# draws nothing")
    assert {world_version()} == versions
    for changed in ("ccl.data.world/lips.py", "ccl.media/write.py"):
        (tmp_path / changed).write_text("# other")
        versions.add(world_version())
    assert len(versions) == 3


def test_missing_espeak_is_one_sentence_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    voices._paths.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'ccl\[world\]'"):
        say(*A)
    monkeypatch.undo()
    voices._paths.cache_clear()


def test_an_unknown_voice_is_named():
    with pytest.raises(ValueError, match="no voice 'nobody'"):
        say("hello", Voice("nobody"))


def test_the_committed_manifests_are_what_the_world_makes(tmp_path):
    committed = ROOT / "evaluation" / "testset" / "world"
    for manifest in write_testset(tmp_path, media=False):
        assert manifest.read_text() == (committed / manifest.name).read_text()
    row = json.loads((tmp_path / "easy.jsonl").read_text().splitlines()[0])
    assert row["id"] == TEST.id(0) and row["prompt"] == TEST.clip(0).prompt
