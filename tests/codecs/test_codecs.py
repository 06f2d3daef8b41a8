"""The closed-form codecs: what their latents, their reconstructions and their basis file promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from ccl.codecs import Codec, EmbeddedAudio, EmbeddedVideo, fit
from ccl.codecs.mel import LogMel, mel_filters
from ccl.codecs.projection import BasisFile
from ccl.codecs.refine import Features, Ridge, context, sequence
from ccl.grid import Grid
from ccl.media import Clip
from ccl.types import AV

RATE = 16_000


@pytest.fixture(scope="module")
def video() -> EmbeddedVideo:
    return EmbeddedVideo()


@pytest.fixture(scope="module")
def audio() -> EmbeddedAudio:
    return EmbeddedAudio(iterations=12)


def picture(frames: int, height: int = 16, width: int = 24, seed: int = 0) -> Tensor:
    """Smooth moving waves in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    f, y, x = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(f / 9 + y / 7 * k + x / 11 + torch.rand(1, generator=g) * 6) for k in range(3)]
    return torch.stack(waves)[None] * 0.8


def tone(seconds: float, hz: float = 440.0) -> Tensor:
    return 0.3 * torch.sin(torch.arange(round(seconds * RATE)) / RATE * 2 * math.pi * hz)[None]


# Video ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 8), (5, 48, 48), (9, 96, 160)])
def test_video_latents_have_the_grids_shape_and_decode_to_the_same_pictures(video, frames, height, width):
    x = picture(frames, height, width)
    z = video.encode(x)
    assert z.shape == (1, 16, 1 + (frames - 1) // 4, height // 8, width // 8)
    y = video.decode(z)
    assert y.shape == x.shape
    assert y.abs().max() <= 1


def test_video_encoder_is_causal(video):
    x = picture(13, 48, 48)
    assert torch.equal(video.encode(x[:, :, :5]), video.encode(x)[:, :, :2])


def test_video_decoder_is_causal(video):
    z = video.encode(picture(13, 48, 48))
    torch.testing.assert_close(video.decode(z[:, :, :2]), video.decode(z)[:, :, :5], atol=1e-5, rtol=0)


def test_video_encoder_inverts_the_basis(video):
    # A block in the span of the basis comes back as the very latents that made it.
    z = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(video.later.project(video.later.expand(z)), z, atol=1e-3, rtol=1e-3)


def test_the_first_picture_shares_the_space_of_the_later_ones(video):
    # Pictures that stand still give the same latents in every frame: nothing tells a network which frame is the first.
    z = video.encode(picture(1, 48, 48).expand(-1, -1, 9, -1, -1))
    torch.testing.assert_close(z[:, :, :1].expand_as(z), z, atol=1e-4, rtol=1e-4)


def test_basis_rows_are_orthonormal_and_in_order_of_sign(video, audio):
    for basis in (video.later, audio.pairs):
        rows = basis.basis
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
        assert (rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all()
        assert (basis.scale > 0).all()


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.7])
def test_a_plain_colour_comes_back(video, value):
    x = torch.full((1, 3, 5, 32, 32), value)
    assert (video.decode(video.encode(x)) - x).abs().mean() < 0.08


def test_any_latents_decode_to_pictures(video):
    y = video.decode(100 * torch.randn(1, 16, 3, 2, 2))
    assert y.isfinite().all()
    assert y.abs().max() <= 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 16, 16), "video has 4 frames; the codec needs 4k \\+ 1"),
        ((1, 3, 5, 20, 16), "video is 20 x 16; the codec needs multiples of 8 pixels"),
        ((1, 3, 0, 16, 16), "video has 0 frames"),
    ],
)
def test_wrong_video_sizes_are_named(video, shape, message):
    with pytest.raises(ValueError, match=message):
        video.encode(torch.zeros(shape))


def test_wrong_latent_channels_are_named(video, audio):
    with pytest.raises(ValueError, match=r"z is Tensor .*; it must be a tensor \(B, 16, T, H, W\)"):
        video.decode(torch.zeros(1, 4, 2, 2, 2))
    with pytest.raises(ValueError, match=r"z is Tensor .*; it must be a tensor \(B, 40, T\)"):
        audio.decode(torch.zeros(1, 4, 2))


def test_a_plain_neighbourhood_gives_context_in_reading_order():
    z = torch.arange(12.0).reshape(1, 1, 3, 4, 1)
    u = context(z)
    assert u[0, 0, 1, 1].tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert u[0, 0, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 0, 4, 5]


def test_sound_gives_context_in_the_order_of_time():
    u = sequence(torch.arange(1.0, 5.0).reshape(1, 4, 1))
    assert u[0].tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [2, 3, 4, 0, 0]]


def test_ridge_finds_a_map_that_the_features_contain():
    g = torch.Generator().manual_seed(0)
    features = Features(2, hidden=32)
    u = torch.randn(4000, 18, generator=g)
    target = features(u) @ torch.randn(32 + 18 + 1, 6, generator=g)
    ridge = Ridge(features, 6)
    ridge.add(u, target)
    inward, outward = ridge.solve(rank=6)
    error = (features(u).double() @ inward @ outward - target).square().mean()
    assert error < 1e-4 * target.square().mean()


# Audio ---------------------------------------------------------------------------------------------------------------


def test_mel_filters_equal_another_implementation():
    from transformers.audio_utils import mel_filter_bank

    theirs = mel_filter_bank(513, 80, 0.0, 8000.0, RATE, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(mel_filters(80, 1024, RATE).T.numpy(), theirs, atol=1e-7)


def test_mel_frames_equal_a_naive_loop():
    mel = LogMel()
    x = torch.randn(1, 1024, generator=torch.Generator().manual_seed(0)) * 0.1
    frames = mel(x)[0]
    padded = np.concatenate([np.zeros(384), x[0].numpy().astype(np.float64), np.zeros(384)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    filters = mel_filters(80, 1024, RATE).double().numpy()
    for i in range(4):
        magnitude = np.abs(np.fft.rfft(padded[256 * i : 256 * i + 1024] * window))
        np.testing.assert_allclose(frames[i].numpy(), np.log(filters @ magnitude + mel.floor), atol=1e-4)


def test_inverse_transform_restores_a_waveform():
    mel = LogMel()
    x = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mel._istft(mel._stft(x)), x, atol=1e-4, rtol=1e-4)


@given(seconds=st.floats(0.0, 1.0), length=st.integers(1, 24))
@settings(max_examples=12, deadline=None)
def test_any_sound_gives_the_asked_number_of_latents(audio, seconds, length):
    x = tone(seconds)
    z = audio.encode(x, length)
    assert z.shape == (1, 40, length)
    assert audio.decode(z[:, :, :2]).shape == (1, 512 * min(length, 2))


def test_audio_latents_do_not_see_what_is_cut(audio):
    x = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    assert torch.equal(audio.encode(x, 8), audio.encode(x[:, : 8 * 512], 8))


def test_silence_decodes_to_silence(audio):
    y = audio.decode(audio.encode(torch.zeros(1, RATE), 31))
    assert y.square().mean().sqrt() < 1e-4


def test_a_tone_keeps_its_pitch_and_loudness(audio):
    x = tone(1.0)
    y = audio.decode(audio.encode(x, 31))[0]
    loudest = torch.fft.rfft(y * torch.hann_window(len(y))).abs().argmax() * RATE / len(y)
    assert abs(loudest - 440) < 25
    assert 0.5 < y.square().mean().sqrt() / x.square().mean().sqrt() < 1.5


def test_decoding_does_not_depend_on_the_batch(audio):
    z = audio.encode(torch.cat([tone(0.5), tone(0.5, 200.0)]), 15)
    torch.testing.assert_close(audio.decode(z)[1:], audio.decode(z[1:]), atol=1e-3, rtol=0)


def test_decoding_repeats_exactly(audio):
    z = audio.encode(tone(0.5), 15)
    assert torch.equal(audio.decode(z), audio.decode(z))


@pytest.mark.parametrize("size", [3.0, 1000.0])
def test_latents_far_off_stay_within_range(audio, size):
    y = audio.decode(size * torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(0)))
    assert y.isfinite().all()
    assert y.abs().max() <= 1


def pairs_of_the_world(audio: EmbeddedAudio) -> tuple[Tensor, Tensor]:
    """Latents (B, T, C) of test clips' sound, and the pairs of log-mel frames that they stand for."""
    world = pytest.importorskip("ccl.data.world").World(split="test")
    sound = torch.tensor(np.stack([world.clip(index).audio for index in range(4)]))[:, : 96 * 512]
    return audio.encode(sound, 96).transpose(1, 2), audio.mel(sound).unflatten(1, (96, 2)).flatten(2)


def test_the_correction_brings_the_worlds_sound_nearer(audio):
    z, true = pairs_of_the_world(audio)
    plain = audio.pairs.expand(z)
    assert (plain + audio.refine(z) - true).square().mean() < 0.7 * (plain - true).square().mean()


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_noise_in_the_latents_of_sound_does_not_blow_up_the_correction(audio, noise):
    z, true = pairs_of_the_world(audio)
    z = z + noise * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    plain = audio.pairs.expand(z)
    assert (plain + audio.refine(z) - true).square().mean() < 1.03 * (plain - true).square().mean()


def test_wrong_sample_counts_are_named():
    with pytest.raises(ValueError, match="audio has 1000 samples; log-mel frames need a multiple of 256"):
        LogMel()(torch.zeros(1, 1000))


# Both ----------------------------------------------------------------------------------------------------------------


def test_latents_of_the_world_have_mean_0_and_variance_1(video, audio):
    world = pytest.importorskip("ccl.data.world").World(seed=1)
    clips = [world.clip(index) for index in range(10)]
    x = torch.stack([torch.tensor(clip.video) for clip in clips]).movedim(-1, 1) / 127.5 - 1
    z = AV(video.encode(x), audio.encode(torch.tensor(np.stack([clip.audio for clip in clips])), 96))
    for latents in z:
        assert latents.mean().abs() < 0.15
        assert 0.7 < latents.std() < 1.3


def test_codec_follows_the_grid_and_skips_an_absent_stream(video, audio):
    grid = Grid(frames=9, height=16, width=16)
    codec = Codec(video, audio)
    z = codec.encode(AV(picture(9, 16, 16), tone(grid.seconds)), grid)
    assert z.video.shape == (1, 16, grid.t_v, grid.latent_height, grid.latent_width)
    assert z.audio.shape == (1, 40, grid.t_a)
    assert codec.encode(AV(None, tone(grid.seconds)), grid).video is None
    assert codec.decode(AV(z.video, None)).audio is None


def test_codecs_carry_no_parameters_and_nothing_into_a_checkpoint(video, audio):
    codec = Codec(video, audio)
    assert not list(codec.parameters())
    assert not codec.state_dict()


def test_autocast_does_not_coarsen_the_codecs(video, audio):
    x, s = picture(5), tone(0.2)
    plain = video.encode(x), audio.encode(s, 6), video.decode(video.encode(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = video.encode(x), audio.encode(s, 6), video.decode(video.encode(x))
    for a, b in zip(plain, mixed, strict=True):
        assert torch.equal(a, b)


# The basis file ------------------------------------------------------------------------------------------------------


def small_clips(count: int = 6) -> list[Clip]:
    rng = np.random.default_rng(0)
    return [
        Clip(
            ((picture(9, 24, 24, seed)[0].movedim(0, -1) + 1) * 127.5).to(torch.uint8).numpy(),
            rng.normal(0, 0.1, RATE // 2).astype(np.float32),
        )
        for seed in range(count)
    ]


def test_fit_makes_a_basis_that_repeats_and_names_the_codec(tmp_path, video):
    one, other = (
        fit(tmp_path / name, small_clips(), video_channels=6, audio_channels=12, hidden=16, rank=8)
        for name in ("a.safetensors", "b.safetensors")
    )
    assert one.read_bytes() == other.read_bytes()
    fitted = EmbeddedVideo(6, str(one))
    assert fitted.identity == EmbeddedVideo(6, str(other)).identity != video.identity
    x = picture(9, 24, 24, seed=2)
    assert (fitted.decode(fitted.encode(x)) - x).square().mean() < 0.01
    assert EmbeddedAudio(12, str(one)).encode(tone(0.2), 6).shape == (1, 12, 6)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.safetensors", "b.safetensors"]


def test_fit_that_keeps_the_bases_keeps_the_latents(tmp_path):
    kinds = {"video_channels": 6, "audio_channels": 12, "hidden": 16}
    first = fit(tmp_path / "a.safetensors", small_clips(), **kinds, rank=8)
    again = fit(tmp_path / "b.safetensors", small_clips(3), **kinds, rank=4, keep_basis=first)
    a, b = load_file(first), load_file(again)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]) == (not name.endswith("ward")), name
    assert EmbeddedVideo(6, str(first)).identity == EmbeddedVideo(6, str(again)).identity
    assert EmbeddedAudio(12, str(first)).identity == EmbeddedAudio(12, str(again)).identity


@pytest.mark.parametrize(("name", "part"), [("video_later", "video"), ("audio", "audio")])
def test_identity_notices_the_encoder_and_not_the_decoder(tmp_path, video, audio, name, part):
    def identities(path):
        return {"video": EmbeddedVideo(basis=path).identity, "audio": EmbeddedAudio(basis=path).identity}

    shipped = BasisFile(None).tensors
    path = str(tmp_path / "other.safetensors")
    save_file(shipped | {f"{name}.outward": shipped[f"{name}.outward"] * 0.5}, path)
    assert identities(path) == {"video": video.identity, "audio": audio.identity}
    for tensor in ("mean", "basis", "scale"):
        save_file(shipped | {f"{name}.{tensor}": shipped[f"{name}.{tensor}"] * 1.001}, path)
        changed = identities(path)
        assert changed.pop(part) != {"video": video, "audio": audio}[part].identity
        assert set(changed.values()) < {video.identity, audio.identity}


def test_the_identity_of_sound_notices_its_spectrogram(audio):
    file = BasisFile(None)
    assert audio.identity.endswith(file.space("audio", LogMel(iterations=3, ceiling=1.0).settings))
    assert not audio.identity.endswith(file.space("audio", LogMel(floor=1e-4).settings))


def test_a_basis_without_a_correction_of_sound_still_decodes(tmp_path, audio):
    plain = {k: v for k, v in BasisFile(None).tensors.items() if not k.startswith(("audio.inward", "audio.outward"))}
    save_file(plain, tmp_path / "plain.safetensors")
    codec = EmbeddedAudio(basis=str(tmp_path / "plain.safetensors"), iterations=2)
    assert codec.refine is None and codec.identity == audio.identity
    assert codec.decode(torch.zeros(1, 40, 4)).shape == (1, 2048)


def test_fit_needs_clips_with_both_streams(tmp_path):
    silent = [Clip(clip.video, None) for clip in small_clips(2)]
    with pytest.raises(ValueError, match="0 blocks of sound to fit 40 channels"):
        fit(tmp_path / "x.safetensors", silent)
    assert not list(tmp_path.iterdir())


def test_the_shipped_basis_is_under_a_megabyte(video):
    from importlib import resources

    assert (resources.files("ccl.codecs") / "basis" / "world.safetensors").stat().st_size < 1e6


def test_a_bad_basis_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.safetensors cannot be read \(No such file"):
        EmbeddedVideo(basis=str(tmp_path / "nowhere.safetensors"))
    (tmp_path / "junk.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match=r"junk\.safetensors is not a safetensors file"):
        EmbeddedAudio(basis=str(tmp_path / "junk.safetensors"))
    with pytest.raises(ValueError, match="has 16 video_later channels and 24 are asked for"):
        EmbeddedVideo(24)


def test_noise_in_the_latents_troubles_the_first_picture_no_more_than_the_others(video):
    # Directions that a still picture never takes once turned into stripes across the first picture.
    z = video.encode(picture(9, 48, 48))
    noisy = z + 0.5 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    error = (video.decode(noisy) - video.decode(z)).square().mean((0, 1, 3, 4)).sqrt()
    assert error[0] < 1.2 * error[1:].mean()


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        (
            "audio.mean",
            lambda x: x[:1],
            r"audio: a codec basis has shapes \(D,\), \(C, D\) and \(C,\), not mean \(1,\)",
        ),
        ("audio.scale", lambda x: x[:1], r"scale \(1,\)"),
        ("audio.scale", torch.zeros_like, "scale 0 in a channel; it must be positive"),
        ("audio.scale", lambda x: x * float("nan"), "scale holds NaN or infinity"),
        ("audio.outward", lambda x: x[1:], r"weights \(N, R\) and \(R, D\), not"),
        ("audio.inward", lambda x: x[:7], "is too small for 40 channels at 5 places"),
    ],
)
def test_a_basis_whose_parts_do_not_belong_together_is_refused_when_built(part, change, said, tmp_path) -> None:
    state = dict(BasisFile(None).tensors)
    save_file(state | {part: change(state[part]).contiguous()}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=said):
        EmbeddedAudio(basis=str(tmp_path / "x.safetensors"))
