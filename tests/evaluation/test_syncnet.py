"""Sync-C and Sync-D: the cepstra, the network and the distances against other implementations, and the whole metric."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from python_speech_features import mfcc as psf_mfcc

from ccl.evaluation import faces
from ccl.evaluation.dsp.mfcc import mfcc
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics import sync
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.sync import Score, SyncNet, choose, confidence, distances, samples
from ccl.evaluation.nets.syncnet import SyncNetwork, Towers
from ccl.media import Clip
from ccl.weights import catalogue as weights

DATA = Path(os.environ.get("CCL_TEST_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CCL_TEST_DATA names no folder of golden numbers and clips")


def filled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights from the crc32 of each key, as the golden numbers were made with (golden/fill.py)."""
    out = {}
    for key, old in state.items():
        if not old.is_floating_point():
            out[key] = old.clone()
            continue
        x: np.ndarray = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(
            tuple(old.shape), dtype=np.float32
        )
        if key.endswith("running_var"):
            x = 1 + 0.1 * np.abs(x)
        elif key.endswith(("running_mean", "bias")):
            x = 0.02 * x
        elif x.ndim == 1:
            x = 1 + 0.1 * x
        else:
            x = x / np.sqrt(np.prod(x.shape[1:]))
        out[key] = torch.from_numpy(np.asarray(x, dtype=np.float32))
    return out


@pytest.fixture(scope="module")
def network() -> SyncNetwork:
    net = SyncNetwork().eval()
    net.load_state_dict(filled(net.state_dict()))
    return net


@pytest.fixture(scope="module")
def balanced(network: SyncNetwork) -> SyncNetwork:
    """The network with embeddings of both kinds around one point, so that distances depend on the sound as on the face.

    As filled, pictures of noise lie 15 times as far out as any sound, and the padding's zeros are always nearest.
    """
    net = SyncNetwork().eval()
    net.load_state_dict(network.state_dict())
    rng = np.random.default_rng(5)
    pictures = torch.from_numpy(rng.integers(0, 256, (1, 3, 5, 224, 224)).astype(np.float32))
    cepstra = torch.from_numpy(psf_mfcc(rng.normal(0, 3277, 4000), 16_000).T[None, None, :, :20].astype(np.float32))
    with torch.inference_mode():
        point = torch.from_numpy(rng.standard_normal(1024).astype(np.float32))
        for head, embedding in ((net.netfclip[3], net.lip(pictures)[0]), (net.netfcaud[3], net.audio(cepstra)[0])):
            assert isinstance(head, torch.nn.Linear)
            head.weight /= embedding.norm() / 100
            head.bias.copy_(head.bias / (embedding.norm() / 100) - embedding / embedding.norm() * 100 + point)
    return net


@pytest.fixture(scope="module")
def weight_file(balanced: SyncNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "syncnet_v2.model"
    torch.save(balanced.state_dict(), path)
    return path


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


# Cepstra --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 399, 400, 401, 559, 560, 561, 639, 640, 12_345, 80_000])
def test_cepstra_are_those_of_python_speech_features(length: int) -> None:
    signal = np.random.default_rng(length).integers(-32768, 32768, length).astype(np.int16)
    np.testing.assert_allclose(mfcc(signal), psf_mfcc(signal, 16_000), rtol=0, atol=1e-6)


def test_cepstra_of_silence_and_of_loudest_samples_are_finite() -> None:
    for signal in (np.zeros(1000, np.int16), np.full(1000, -32768, np.int16), np.eye(1, 1000)[0].astype(np.int16)):
        np.testing.assert_allclose(mfcc(signal), psf_mfcc(signal, 16_000), rtol=0, atol=1e-6)
        assert np.isfinite(mfcc(signal)).all()


def test_cepstra_leave_their_input_alone_and_refuse_none() -> None:
    signal = np.arange(900.0)
    mfcc(signal)
    np.testing.assert_array_equal(signal, np.arange(900.0))
    with pytest.raises(ValueError, match="without samples"):
        mfcc(np.zeros(0, np.int16))


# The network ----------------------------------------------------------------------------------------------------------


@needs_data
def test_keys_and_shapes_are_the_published_ones(network: SyncNetwork) -> None:
    published = json.loads((DATA / "spec/keys/syncnet_keys.json").read_text())
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == published


@needs_data
def test_embeddings_are_those_of_the_upstream_code(network: SyncNetwork) -> None:
    golden = np.load(DATA / "golden/syncnet_fwd.npz")
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.uniform(0, 255, (2, 3, 5, 224, 224)).astype(np.float32))
    cepstra = torch.from_numpy(rng.standard_normal((2, 1, 13, 20), np.float32) * 8)
    # Of values up to 82 and 5; a processor that adds in another order was 1.5e-4 off.
    with torch.inference_mode():
        torch.testing.assert_close(network.lip(pictures), torch.from_numpy(golden["lip"]), rtol=1e-4, atol=5e-4)
        torch.testing.assert_close(network.audio(cepstra), torch.from_numpy(golden["aud"]), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_towers_give_the_embedding_of_each_window_alone(network: SyncNetwork, precision: Any, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(0, 256, (8, 224, 224, 3), dtype=torch.uint8, generator=generator)
    rgb[..., 0] //= 3  # red differs from blue, else their order would not show
    cepstra = torch.randn(13, 31, generator=generator) * 8
    towers = Towers(network, precision=precision, chunk=3)  # does not divide the 4 windows
    bgr = rgb.flip(-1).permute(3, 0, 1, 2).float()
    with torch.inference_mode():
        lip = torch.cat([network.lip(bgr[None, :, i : i + 5]) for i in range(4)])
        audio = torch.cat([network.audio(cepstra[None, None, :, 4 * i : 4 * i + 20]) for i in range(3)])
        swapped = network.lip(bgr.flip(0)[None, :, :5])
    assert apart(towers.lip(rgb), lip) < tolerance
    assert apart(towers.audio(cepstra), audio) < tolerance
    assert apart(swapped, lip[:1]) > 0.03


def test_windows_go_through_the_network_in_chunks_and_those_of_several_sounds_together(network: SyncNetwork) -> None:
    generator = torch.Generator().manual_seed(1)
    track = torch.randint(0, 256, (10, 224, 224, 3), dtype=torch.uint8, generator=generator)
    sounds = [torch.randn(13, n, generator=generator) * 8 for n in (33, 20, 24)]
    towers = Towers(network, chunk=4)
    calls: list[int] = []
    hook = towers.cnnlip.register_forward_hook(lambda *seen: calls.append(len(seen[1][0])))
    lip, audio = towers.lip(track), towers.audio(torch.cat(sounds, 1), torch.tensor([0, 4, 8, 12, 33, 53, 57]))
    hook.remove()
    assert calls == [4, 2]
    assert apart(lip, torch.cat([towers.lip(track[i : i + 5]) for i in range(6)])) < 1e-5
    assert apart(audio, torch.cat([towers.audio(sound) for sound in sounds])) < 1e-5


def test_towers_of_less_than_a_window_give_no_embedding(network: SyncNetwork) -> None:
    towers = Towers(network)
    assert towers.lip(torch.zeros(4, 224, 224, 3, dtype=torch.uint8)).shape == (0, 1024)
    assert towers.audio(torch.zeros(13, 19)).shape == (0, 1024)


# Distances ------------------------------------------------------------------------------------------------------------


def looped(video: np.ndarray, audio: np.ndarray, vshift: int) -> np.ndarray:
    table = np.zeros((len(video), 2 * vshift + 1))
    for i in range(len(video)):
        for k in range(2 * vshift + 1):
            j = i + k - vshift
            sound = audio[j] if 0 <= j < len(audio) else np.zeros(audio.shape[1])
            table[i, k] = np.sqrt(np.sum((video[i] - sound + 1e-6) ** 2))
    return table


@pytest.mark.parametrize(("count", "vshift"), [(1, 15), (7, 15), (40, 15), (9, 2)])
def test_distances_are_those_of_a_loop(count: int, vshift: int) -> None:
    rng = np.random.default_rng(count)
    video, audio = rng.standard_normal((2, count, 1024))
    ours = distances(torch.from_numpy(video), torch.from_numpy(audio), vshift)
    np.testing.assert_allclose(ours.numpy(), looped(video, audio, vshift), rtol=1e-12)


def test_confidence_is_median_less_least_of_the_mean_distances() -> None:
    d = np.random.default_rng(0).uniform(5, 10, (20, 31))
    mean = d.mean(0)
    c, distance, offset = confidence(torch.from_numpy(d))
    assert c == pytest.approx(np.sort(mean)[15] - mean.min())
    assert distance == pytest.approx(mean.min())
    assert offset == 15 - mean.argmin()


@pytest.mark.parametrize("early", [-6, 0, 4])
def test_offset_is_how_many_pictures_the_sound_is_early(early: int) -> None:
    scene = torch.randn(100, 1024, generator=torch.Generator().manual_seed(1))
    video, audio = scene[20:70], scene[20 + early : 70 + early]
    c, distance, offset = confidence(distances(video, audio))
    assert offset == early
    assert distance < 10 < c


def test_several_tracks_are_averaged_or_the_best_is_taken() -> None:
    scores = [Score(2.0, 9.0, 1.0), Score(6.0, 8.0, -3.0), Score(4.0, 4.0, 5.0)]
    assert choose(scores, "mean") == Score(4.0, 7.0, 1.0)
    assert choose(scores, "best") == scores[2]


def test_samples_are_rounded_and_clipped_to_16_bits() -> None:
    sound = np.array([0.0, 1.0, -1.0, 2.0, 0.5, 1.4 / 32768, -1.6 / 32768], np.float32)
    assert samples(sound).tolist() == [0, 32767, -32768, 32767, 16384, 1, -2]


# The metric -----------------------------------------------------------------------------------------------------------


def film(pictures: int, seconds: float, seed: int = 0) -> Film:
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (pictures, 8, 8, 3)).astype(np.uint8)
    return Film(Clip(video, (rng.standard_normal(int(16_000 * seconds)) * 0.1).astype(np.float32)))


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> list[faces.Track]:
    """Tracks to be found in any film; the crops of one are pictures of its own."""
    found: list[faces.Track] = []

    def crop(film: Film, track: faces.Track, settings: faces.Settings) -> np.ndarray:
        shape = (len(track.boxes), 224, 224, 3)
        return np.random.default_rng(track.start).integers(0, 256, shape).astype(np.uint8)

    monkeypatch.setattr(faces, "tracks", lambda film, settings, given: found)
    boxes = [np.zeros((n % 2, 5)) for n in range(9)]
    monkeypatch.setattr(faces, "found", lambda film, settings, given: boxes)
    monkeypatch.setattr(faces, "crop", crop)
    monkeypatch.setattr(faces, "missing", lambda settings, given: "")
    monkeypatch.setattr(faces, "detector_name", lambda settings, given: "s3fd")
    return found


def test_a_clip_gets_what_the_reference_computes_window_by_window(
    balanced: SyncNetwork, weight_file: Path, tracked: list[faces.Track]
) -> None:
    tracked.append(faces.Track(3, np.zeros((25, 4))))
    clip = film(30, 1.2)
    metric = SyncNet(weights=weight_file)
    [result] = metric.score([clip])
    # The upstream's loop, of a track's pictures and the sound cut to its times.
    heard = np.clip(np.rint(clip.audio * 32768.0), -32768, 32767).astype(np.int16)[3 * 640 : 28 * 640]
    bgr = faces.crop(clip, tracked[0], faces.Settings())[..., ::-1].astype(np.float32).transpose(3, 0, 1, 2)
    cepstra = psf_mfcc(heard, 16_000).T.astype(np.float32)
    last = min(bgr.shape[1], len(heard) // 640) - 5
    with torch.inference_mode():
        video = torch.cat([balanced.lip(torch.from_numpy(bgr[None, :, i : i + 5].copy())) for i in range(last)])
        audio = torch.cat(
            [balanced.audio(torch.from_numpy(cepstra[None, None, :, 4 * i : 4 * i + 20].copy())) for i in range(last)]
        )
    mean = looped(video.numpy(), audio.numpy(), 15).mean(0)
    assert isinstance(result, Measured)
    assert 2 < mean.argmin() < 28  # not at the padding
    assert result.values["sync_c"] == pytest.approx(np.median(mean) - mean.min(), rel=1e-4)
    assert result.values["sync_d"] == pytest.approx(mean.min(), rel=1e-5)
    assert result.values["sync_offset"] == 15 - mean.argmin()
    assert (result.values["sync_faces"], result.values["sync_pictures"]) == (4, 9)
    # Verse-Bench's list of 31 distances, averaged: another number of the same windows, and a larger one.
    metric.distance = "mean"
    [listed] = metric.score([clip])
    assert isinstance(listed, Measured)
    assert listed.values["sync_d"] == pytest.approx(mean.mean(), rel=1e-5)
    assert listed.values["sync_d"] > 1.001 * result.values["sync_d"]
    assert listed.values["sync_c"] == result.values["sync_c"]


def test_a_clip_scores_the_same_in_any_company(weight_file: Path, tracked: list[faces.Track]) -> None:
    metric, clips = SyncNet(weights=weight_file), [film(30, 1.2), film(12, 0.4, seed=1), film(16, 0.64, seed=2)]
    inputs = []
    for clip, ranges in zip(clips, [[(3, 12), (0, 9)], [(1, 10)], [(2, 11), (5, 8)]], strict=True):
        tracked[:] = [faces.Track(start, np.zeros((length, 4))) for start, length in ranges]
        inputs.append(metric.prepare(clip))
    alone = [metric.measured([one])[0] for one in inputs]
    metric.batch_size = 3
    for one, other in zip(metric.measured(inputs), alone, strict=True):
        assert isinstance(one, Measured)
        assert isinstance(other, Measured)
        assert one.values == pytest.approx(other.values, rel=1e-4)


def test_a_track_goes_through_the_network_once_whatever_sounds_it_gets(
    weight_file: Path, tracked: list[faces.Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked += [faces.Track(0, np.zeros((12, 4))), faces.Track(3, np.zeros((9, 4)))]
    metric, one = SyncNet(weights=weight_file), film(16, 0.64)
    others = [one.with_sound(film(16, 0.64, seed=seed).audio, one.clip.sample_rate) for seed in (1, 2)]
    lip, looked = metric.towers().lip, []
    monkeypatch.setattr(metric.towers(), "lip", lambda pictures: looked.append(len(pictures)) or lip(pictures))
    together = [metric.score([each])[0] for each in (one, *others)]
    assert looked == [11, 8] and len({result.values["sync_d"] for result in together}) == 3
    apart = [metric.score([Film(each.clip)])[0] for each in (one, *others)]
    assert [result.values for result in together] == [result.values for result in apart] and len(looked) == 8


def test_sound_that_ends_early_shortens_the_track(tracked: list[faces.Track]) -> None:
    tracked += [faces.Track(0, np.zeros((20, 4))), faces.Track(12, np.zeros((8, 4)))]
    [talk] = SyncNet().prepare(film(20, 15.9 / 25))  # sound for 15 whole pictures; the second track keeps 3
    assert talk.windows == 10
    assert len(talk.faces) == 14
    assert len(talk.mfcc) >= 4 * (talk.windows - 1) + 20


def test_a_clip_too_short_for_a_window_has_a_reason(tracked: list[faces.Track]) -> None:
    tracked.append(faces.Track(0, np.zeros((20, 4))))
    with pytest.raises(Unscorable, match="the sound ends before"):
        SyncNet().prepare(film(20, 5 / 25))
    assert SyncNet().prepare(film(20, 6 / 25))[0].windows == 1


def test_a_clip_without_sound_has_a_reason_before_faces_are_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "tracks", lambda *_: pytest.fail("faces were sought"))
    [result] = SyncNet().score([Clip(np.zeros((50, 8, 8, 3), np.uint8), None)])
    assert result == Failed("no audio stream")


def test_the_active_speaker_is_the_track_that_speaks_most(
    tracked: list[faces.Track], monkeypatch: pytest.MonkeyPatch, weight_file: Path
) -> None:
    tracked += [faces.Track(start, np.zeros((10, 4))) for start in (0, 2, 4)]
    means = {int(faces.crop(film(1, 1), track, faces.Settings()).sum()): track.start for track in tracked}

    def speaking(crops: np.ndarray, sound: np.ndarray, path: Path) -> float:
        assert path == weight_file
        assert len(sound) == len(crops) * 640
        return {0: -1.0, 2: 3.0, 4: 0.5}[means[int(crops.sum())]]

    monkeypatch.setattr(faces, "speaking", speaking)
    metric = SyncNet(active_speaker=True, face_weights={"light_asd": weight_file})
    [talk] = metric.prepare(film(20, 1))
    np.testing.assert_array_equal(talk.faces, faces.crop(film(1, 1), tracked[1], metric.settings)[:9])


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracked: list[Any]) -> None:
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert "ccl weights fetch syncnet" in SyncNet().missing()
    (tmp_path / "syncnet_v2.model").write_bytes(b"x")
    assert SyncNet().missing() == ""
    assert "ccl weights fetch light_asd" in SyncNet(active_speaker=True).missing()


def test_a_file_of_other_weights_is_refused_by_name(tmp_path: Path, tracked: list[faces.Track]) -> None:
    tracked.append(faces.Track(0, np.zeros((10, 4))))
    torch.save({"vgg.0.weight": torch.zeros(3)}, tmp_path / "sfd_face.pth")
    [result] = SyncNet(weights=tmp_path / "sfd_face.pth").score([film(10, 1)])
    assert isinstance(result, Failed)
    assert "sfd_face.pth: these are not SyncNet's weights: the file lacks 88 keys" in result.reason


def test_the_protocol_states_every_convention(weight_file: Path, tracked: list[faces.Track]) -> None:
    metric = SyncNet(min_track=20, tracks="best", weights=weight_file, face_weights={"s3fd": weight_file})
    protocol = metric.protocol()
    assert json.loads(json.dumps(protocol)) == protocol
    assert protocol["detector"] == "s3fd"
    assert protocol["faces"] == "at 0.25 of the size, score above 0.9"
    assert protocol["min_track"] == 20
    assert protocol["tracks"] == "best"
    assert protocol["weights"] == {name: weights.sha256(weight_file) for name in ("syncnet", "s3fd")}
    assert sync.FPS == 25


@needs_data
def test_a_real_clip_is_scored_from_file_to_numbers(weight_file: Path) -> None:
    pytest.importorskip("cv2")
    whole = Film.read(DATA / "clips/versebench_syncnet_1.mp4").clip
    assert whole.video is not None
    assert whole.audio is not None
    clip = Clip(whole.video[:21], whole.audio[: int(0.84 * whole.sample_rate)], whole.fps, whole.sample_rate)
    yunet = DATA / "weights/face_detection_yunet_2026may.onnx"
    metric = SyncNet(min_track=20, detector="yunet", weights=weight_file, face_weights={"yunet": yunet})
    assert metric.missing() == ""
    [talk] = metric.prepare(Film.of(clip))
    assert talk.windows == 16
    [fp32] = metric.measured([[talk]])
    [half] = SyncNet(weights=weight_file, precision="bf16").measured([[talk]])
    assert isinstance(fp32, Measured)
    assert isinstance(half, Measured)
    assert np.isfinite(list(fp32.values.values())).all()
    assert half.values["sync_d"] == pytest.approx(fp32.values["sync_d"], rel=0.02)
    # So few pictures are too few for the default.
    [refused] = SyncNet(detector="yunet", weights=weight_file, face_weights={"yunet": yunet}).score([clip])
    assert isinstance(refused, Failed)
    assert "50" in refused.reason
