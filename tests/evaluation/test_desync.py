"""DeSync: the network against golden outputs, the protocol against a naive telling of it, and what cannot be scored.

CCL_TEST_DATA names the folder of golden outputs, key lists and real clips.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from ccl.evaluation.dsp.mel import mel_spectrogram
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.desync import CHANCE, OFFSETS, DeSync, choose, crops, desync, log_mel
from ccl.evaluation.nets.synchformer import Synchformer
from ccl.media import Clip

DATA = Path(os.environ.get("CCL_TEST_DATA", ""))
needs_data = pytest.mark.skipif(not os.environ.get("CCL_TEST_DATA"), reason="CCL_TEST_DATA names no folder")


# the network ----------------------------------------------------------------------------------------------------------


def golden(sees: bool):
    """The published network filled as the golden outputs' was, what sees being half of it; its inputs, its outputs."""
    spec = importlib.util.spec_from_file_location("fill", DATA / "golden" / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    keys = json.loads((DATA / "spec" / "keys" / "synchformer_keys.json").read_text())
    asked = {k: torch.empty(v, device="meta") for k, v in keys.items() if k.startswith("vfeat_extractor.") == sees}
    left = {k: torch.zeros(()).expand(v) for k, v in keys.items() if k not in asked}
    net = Synchformer.of(fill.fill_state_dict(asked) | left)
    rng = np.random.default_rng(0)
    draw = [
        torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        for shape in (
            (2, 1, 16, 3, 224, 224),
            (1, 2, 1, 128, 66),
            (2, 16, 3, 224, 224),
            (1, 14, 8, 768),
            (1, 14, 6, 768),
        )
    ]
    return net, draw[1:], np.load(DATA / "golden" / "synchformer_fwd.npz")


def far(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


@needs_data
def test_the_network_hears_and_compares_as_the_authors_does():
    net, (mel, _, seen, heard), expected = golden(sees=False)
    with torch.inference_mode():
        assert far(net.hear(mel[0, :, 0]), expected["afeat"][0]) < 1e-5
        assert far(net.compare(seen, heard), expected["logits"]) < 1e-5


@pytest.mark.slow  # 0.36 TFLOP; that the attentions of `see` are those of the paper, a small network tells below
@needs_data
def test_the_network_sees_as_the_authors_does():
    net, (_, pictures, _, _), expected = golden(sees=True)
    with torch.inference_mode():
        assert far(net.see(pictures), expected["vfeat"]) < 1e-5


@needs_data
def test_the_network_has_the_published_files_names_and_shapes():
    keys = json.loads((DATA / "spec" / "keys" / "synchformer_keys.json").read_text())
    with torch.device("meta"):
        net = Synchformer()
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == keys
    assert sum(p.numel() for p in net.parameters()) == 237_460_245


@pytest.fixture(scope="module")
def small():
    """A network of the same form, 12 heads of 4."""
    torch.manual_seed(0)
    net = Synchformer(width=48, depth=1)
    for parameter in net.parameters():  # tokens and positions begin at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    net.transformer.off_head.weight.data *= 5
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small_file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(small.state_dict(), path)
    return path


def test_segments_seen_together_are_seen_alone(small):
    x = torch.randn(2, 16, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    together = small.see(x)
    torch.testing.assert_close(together, torch.cat([small.see(x[:1]), small.see(x[1:])]), rtol=1e-4, atol=1e-5)


def test_time_reads_only_its_place_and_space_only_its_time(small):
    """A patch's change reaches, in one attention, its own column (or picture) and the CLS token, nothing else."""
    x = torch.randn(1, 1 + 8 * 6, 48, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[0, 1 + 3 * 6 + 2] += 1  # picture 3, place 2
    for attention, reached in (
        (small.vfeat_extractor.blocks[0].timeattn, {1 + f * 6 + 2 for f in range(8)}),
        (small.vfeat_extractor.blocks[0].attn, {1 + 3 * 6 + p for p in range(6)}),
    ):
        moved = (attention(changed) - attention(x)).abs().amax(2)[0] > 1e-7
        assert set(moved.nonzero().flatten().tolist()) == reached | {0}


def test_a_file_of_something_else_is_refused_in_words(small):
    with pytest.raises(ValueError, match="not Synchformer's weights"):
        Synchformer.of({"weight": torch.ones(2)})
    state = small.state_dict()
    state.pop("transformer.OFF_tok")
    with pytest.raises(ValueError, match=r"not Synchformer's weights.*OFF_tok"):
        Synchformer.of(state)


# what it is given -----------------------------------------------------------------------------------------------------


def test_mel_spectrogram_is_torchaudios():
    # torchaudio 2.11.0, transforms.MelSpectrogram(16000, win_length=400, hop_length=160, n_fft=1024, n_mels=128) of
    # 0.1 * numpy.random.default_rng(0).standard_normal(10240) as float32: (band, frame) -> power, and the sum.
    theirs = {
        (0, 0): 1.16251004,
        (3, 1): 0.87898862,
        (64, 32): 5.57890797,
        (127, 64): 18.44703865,
        (100, 7): 14.0306673,
    }
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(10_240).astype(np.float32)) * 0.1
    mel = mel_spectrogram(x)
    assert mel.shape == (128, 65)
    for place, value in theirs.items():
        assert float(mel[place]) == pytest.approx(value, rel=1e-4)
    assert float(mel.sum()) == pytest.approx(49_100.4453, rel=1e-5)


def test_mel_spectrogram_is_the_sum_written_out():
    x = np.random.default_rng(1).standard_normal(2000)
    padded = np.concatenate([x[512:0:-1], x, x[-2:-514:-1]])  # reflected, the end itself not repeated
    window = np.zeros(1024)
    window[312:712] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 130) / 2595) - 1)
    power = np.stack([np.abs(np.fft.rfft(padded[160 * t : 160 * t + 1024] * window)) ** 2 for t in range(13)])
    expected = np.zeros((128, 13))
    for m in range(128):
        for k in range(513):
            rise = (k * 15.625 - corners[m]) / (corners[m + 1] - corners[m])
            fall = (corners[m + 2] - k * 15.625) / (corners[m + 2] - corners[m + 1])
            if (weight := min(rise, fall)) > 0:
                expected[m] += power[:, k] * weight
    ours = mel_spectrogram(torch.from_numpy(x.astype(np.float32)))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=2e-4, atol=1e-4)


def test_the_last_mel_frame_is_a_zero_before_normalising():
    mel = log_mel(torch.zeros(1, 10_240))
    assert mel.shape == (1, 128, 66)
    torch.testing.assert_close(mel[0, :, 65], torch.full((128,), 4.2677393 / 9.1379948))
    torch.testing.assert_close(mel[0, :, 64], torch.full((128,), (np.log(1e-6) + 4.2677393) / 9.1379948).float())


@pytest.mark.parametrize(("height", "width"), [(270, 480), (480, 270), (100, 131), (64, 64)])
def test_pictures_are_resized_as_bytes_and_cropped_in_the_middle(height, width):
    t = np.linspace(0, 3, height)[:, None, None], np.linspace(0, 5, width)[None, :, None]
    picture = (127 + 120 * np.sin(3 * t[0] + np.arange(3)) * np.cos(2 * t[1])).astype(np.uint8)
    ours = crops(np.stack([picture, picture[::-1]]), np.array([1, 0]))
    size = (224, int(224 * width / height)) if height <= width else (int(224 * height / width), 224)
    exact = F.interpolate(
        torch.from_numpy(picture).permute(2, 0, 1)[None].double(), size, mode="bicubic", antialias=True
    )
    top, left = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    exact = exact[0, :, top : top + 224, left : left + 224].permute(1, 2, 0)
    assert (ours[1] - exact).abs().max() <= 1.5  # bytes between the two passes, too
    assert ours.shape == (2, 224, 224, 3) and not torch.equal(ours[0], ours[1])


def test_a_picture_of_the_right_size_is_left_alone():
    video = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    video.flags.writeable = False
    assert torch.equal(crops(video, np.array([2, 0])), torch.from_numpy(video[[2, 0]].copy()))


# the protocol ---------------------------------------------------------------------------------------------------------


def clip(seconds: float = 5.0, fps: float = 25.0, sample_rate: int = 16_000, sound: float | None = None) -> Clip:
    """Pictures that drift and a noise that swells, no moment like another."""
    rng = np.random.default_rng(0)
    frames, samples = round(seconds * fps), round((seconds if sound is None else sound) * sample_rate)
    video = rng.integers(0, 256, (frames, 32, 40, 3), dtype=np.uint8)
    audio = 0.3 * rng.standard_normal(samples) * np.linspace(0.1, 1, samples)
    return Clip(video, audio.astype(np.float32), fps, sample_rate)


def naive(film: Film, net: Synchformer, pictures: int) -> list[torch.Tensor]:
    """Logits of the first and the last 14 segments, each cut, prepared and computed for itself."""
    whole = crops(film.video, film.indices(25)[:pictures]).permute(0, 3, 1, 2)
    whole = (whole / 255 - 0.5) / 0.5
    sound = torch.from_numpy(film.sound(16_000))
    count = (pictures - 16) // 8 + 1
    logits = []
    for first in sorted({0, count - 14}):
        seen = [net.see(whole[8 * i : 8 * i + 16][None]) for i in range(first, first + 14)]
        heard = [net.hear(log_mel(sound[5120 * i : 5120 * i + 10_240][None])) for i in range(first, first + 14)]
        logits.append(net.compare(torch.stack(seen, 1)[0][None], torch.stack(heard, 1)[0][None]))
    return logits


@pytest.mark.parametrize(("seconds", "fps", "sample_rate"), [(5.5, 25.0, 16_000), (7.3, 15.0, 44_100)])
def test_segments_shared_by_both_windows_are_those_computed_apart(small, small_file, seconds, fps, sample_rate):
    film = Film(clip(seconds, fps, sample_rate))
    metric = DeSync(weights=small_file)
    inputs = metric.prepare(film)
    expected = torch.cat(naive(film, small, int(25 * seconds + 1e-6)))
    compared = []
    compare = metric.network().compare
    metric.network().compare = lambda seen, heard: compared.append(compare(seen, heard)) or compared[-1]
    [result] = metric.measure([inputs])
    torch.testing.assert_close(compared[0], expected, rtol=1e-3, atol=1e-4)
    assert result.values["desync"] == pytest.approx(float(OFFSETS[expected.argmax(1)].abs().mean()))
    assert len(inputs.index) <= 28 and len(inputs.pictures) <= len(film.video)


@pytest.mark.parametrize("count", [14, 15, 27, 28, 29, 40])
def test_there_are_always_fourteen_segments_the_first_and_the_last(count):
    segments, windows = choose(count)
    expected = [list(range(14)), list(range(count))[-14:]]
    assert segments[windows].tolist() == expected[: 1 if count == 14 else 2]
    assert len(set(segments)) == len(segments) == min(count, 28)


class Named(Synchformer):
    """A network that names the given classes, a window after the other."""

    def __init__(self, *classes: int) -> None:
        nn.Module.__init__(self)
        self.classes = classes

    def see(self, pictures):
        return torch.zeros(len(pictures), 8, 4)

    def hear(self, mel):
        return torch.zeros(len(mel), 6, 4)

    def compare(self, seen, heard):
        assert seen.shape[1:] == (14, 8, 4) and heard.shape[1:] == (14, 6, 4)
        return F.one_hot(torch.tensor(self.classes), 21).float()


@pytest.mark.parametrize(
    ("seconds", "classes", "value"),
    [(4.8, (10,), 0.0), (4.8, (13,), 0.6), (5.12, (0, 20), 2.0), (5.2, (9, 13), 0.4), (12.0, (10, 15), 0.5)],
)
def test_the_value_is_the_mean_size_of_the_named_offsets(monkeypatch, seconds, classes, value):
    metric = DeSync()
    monkeypatch.setattr(metric, "network", lambda: Named(*classes))
    [result] = metric.score([clip(seconds)])
    assert result.values == {"desync": pytest.approx(value, abs=1e-6)}


def test_clips_of_different_lengths_go_through_together(monkeypatch):
    metric = DeSync()
    monkeypatch.setattr(metric, "network", lambda: Named(0, 10, 15, 15))
    results = metric.score([clip(4.8), clip(3.0), clip(6.0), clip(4.9)])
    assert [getattr(result, "values", {}).get("desync") for result in results] == pytest.approx(
        [2.0, None, 0.5, 1.0], abs=1e-6
    )


@pytest.mark.parametrize(
    ("made", "asked", "words"),
    [
        (clip(4.76), None, "119 frames at 25 fps and 76,160 samples at 16 kHz, where DeSync needs 120 and 76,800"),
        (clip(8.0, sound=4.79), None, "the pictures last 8.00 s and the sound 4.79 s: 119 frames"),
        (clip(5.0), 8.0, "the pictures last 5.00 s and the sound 5.00 s; 8.00 s of both are asked for"),
        (clip(8.0, sound=7.9), 8.0, "the sound 7.90 s; 8.00 s of both"),
        (Clip(clip().video, None), None, "no audio stream"),
        (Clip(None, clip().audio), None, "no video stream"),
    ],
)
def test_a_clip_too_short_has_a_reason_with_figures(made, asked, words):
    with pytest.raises(Unscorable) as error:
        DeSync(seconds=asked).prepare(Film(made))
    assert words in str(error.value)


def test_sound_shorter_than_the_pictures_shortens_both():
    """Pictures for 9 s and sound for 6: as if the clip ended at 6."""
    long = clip(9.0, sound=6.0)
    both = [DeSync().prepare(Film(Clip(video, long.audio))) for video in (long.video, long.video[:150])]
    assert torch.equal(both[0].pictures, both[1].pictures) and torch.equal(both[0].mel, both[1].mel)
    assert len(both[0].index) == (150 - 16) // 8 + 1


def test_seconds_cut_the_clip_and_cannot_be_too_few():
    whole, cut = DeSync().prepare(Film(clip(8.0))), DeSync(seconds=4.8).prepare(Film(clip(8.0)))
    assert len(whole.index) == 24 and len(cut.index) == 14 and len(cut.windows) == 1
    with pytest.raises(ValueError, match="seconds is 4"):
        DeSync(seconds=4.0)


def test_bf16_moves_the_logits_little(small, small_file):
    metric = DeSync(weights=small_file, precision="bf16")
    found = []
    compare = metric.network().compare
    metric.network().compare = lambda *x: found.append(compare(*x)) or found[-1]
    film = Film(clip(4.8))
    [result] = metric.score([film])
    assert isinstance(result, Measured)
    expected = naive(film, small, 120)[0]
    assert 0 < float((found[0].float() - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_the_protocol_says_what_chance_would_score():
    assert pytest.approx(2 * sum(0.2 * k for k in range(1, 11)) / 21, abs=1e-6) == CHANCE
    protocol = json.loads(json.dumps(DeSync(seconds=8.0).protocol()))
    assert protocol["chance"] == 1.048 and protocol["seconds"] == 8.0 and protocol["weights"] == ""


def test_weights_that_are_missing_or_wrong_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert "ccl weights fetch synchformer" in DeSync().missing()
    wrong = tmp_path / "wrong.safetensors"
    save_file({"weight": torch.ones(2)}, wrong)
    metric = DeSync(weights=wrong)
    assert metric.missing() == "" and len(metric.protocol()["weights"]) == 64
    [result] = metric.score([clip(4.8)])
    assert isinstance(result, Failed) and "not Synchformer's weights" in result.reason
    with pytest.raises(ValueError, match="not finite"):
        desync(torch.full((2, 21), torch.nan))


@needs_data
def test_a_real_clip_of_15_fps_keeps_each_of_its_pictures_once(small_file):
    metric = DeSync(weights=small_file)
    film = Film.read(DATA / "clips" / "condfoley_hitting_metal.mp4")
    inputs = metric.prepare(film)
    assert len(inputs.pictures) <= len(film.video) < inputs.index.max() + 2 * len(inputs.index)
    [result] = metric.measure([inputs])
    assert 0 <= result.values["desync"] <= 2
