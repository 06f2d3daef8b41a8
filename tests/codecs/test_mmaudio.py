"""MMAudio's codec against diffusers' networks and transformers' mel spectrogram, on random weights in every layout."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ccl.codecs.mel import mel_filters
from ccl.codecs.mmaudio import VARIANTS, MMAudio, TanhConv, bigvgan, fuse, mel_vae
from ccl.grid import Grid
from helpers.mmaudio_files import SIZES, WIDTH, normalised, vae_state, vocoder, vocoder_state


def fused_by_upstream(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What MMAudio's `remove_weight_norm` does, with diffusers' `normalize` for EDM2's."""
    from diffusers.models.autoencoders.autoencoder_mmaudio import normalize

    return {
        k: normalize(x) / math.sqrt(x[0].numel()) if x.ndim == 3 and "data_" not in k else x for k, x in state.items()
    }


def diffusers_vae(variant: str, state: dict[str, Tensor]) -> Any:
    from diffusers import MMAudioVAE

    mel, (bands, channels) = VARIANTS[variant].mel, SIZES[variant]
    net = MMAudioVAE(bands, channels, WIDTH, (1, 2, 4), 2, mel.sample_rate, mel.n_fft, mel.hop).eval()
    net.vae.load_state_dict(fused_by_upstream(state))
    return net


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Callable[..., MMAudio]:
    """A codec on the authors' layout."""
    folder = tmp_path_factory.mktemp("mmaudio")

    def make(variant: str, **settings: Any) -> MMAudio:
        vae, generator = folder / f"v1-{variant}.pth", folder / f"netG-{variant}.pt"
        if not vae.exists():
            torch.save(vae_state(variant), vae)
            torch.save({"generator": normalised(vocoder_state(variant), new=False)}, generator)
        return MMAudio(variant, vae, generator, **settings)

    return make


def sound(samples: int, clips: int = 1, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(clips, samples, generator=g) * torch.linspace(0, 1, samples)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


# Front end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["16k", "44k"])
def test_filters_are_those_of_transformers(variant: str) -> None:
    from transformers.audio_utils import mel_filter_bank

    mel = VARIANTS[variant].mel
    theirs = mel_filter_bank(
        mel.n_fft // 2 + 1, mel.bands, 0.0, mel.sample_rate / 2, mel.sample_rate, norm="slaney", mel_scale="slaney"
    )
    ours = mel_filters(mel.bands, mel.n_fft, mel.sample_rate)
    np.testing.assert_allclose(ours.numpy(), theirs.T, atol=1e-8)


@pytest.mark.parametrize(("variant", "log"), [("16k", "log10"), ("44k", "log")])
def test_log_mel_is_that_of_transformers(variant: str, log: Any) -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    mel = VARIANTS[variant].mel
    audio = sound(20 * mel.hop)
    filters = mel_filter_bank(
        mel.n_fft // 2 + 1, mel.bands, 0.0, mel.sample_rate / 2, mel.sample_rate, norm="slaney", mel_scale="slaney"
    )
    padded = np.pad(audio[0].double().numpy(), mel.side, mode="reflect")
    theirs = spectrogram(
        padded, window_function(mel.n_fft, "hann"), mel.n_fft, mel.hop, mel.n_fft,
        power=1.0, center=False, mel_filters=filters, mel_floor=1e-5, log_mel=log,
    )  # fmt: skip
    ours = VARIANTS[variant].log_mel(audio)
    assert ours.shape == (1, mel.bands, 20)
    # Theirs has no 1e-9 under the root, which moves the quiet start by a thousandth.
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=2e-3)
    np.testing.assert_allclose(ours[0, :, 5:].numpy(), theirs[:, 5:], atol=1e-5)


@pytest.mark.parametrize("variant", ["16k", "44k"])
def test_log_mel_is_that_of_diffusers_but_for_the_logarithm(variant: str) -> None:
    net = diffusers_vae(variant, vae_state(variant))
    audio = sound(16 * VARIANTS[variant].mel.hop) * 20  # beyond 1: both clamp it
    theirs = net.mel_converter(audio) / (math.log(10) if variant == "16k" else 1)
    assert relative(VARIANTS[variant].log_mel(audio), theirs) < 1e-5  # their filters are made in float32


def test_silence_is_the_floor() -> None:
    for variant, value in (("16k", -5.0), ("44k", math.log(1e-5))):
        layout = VARIANTS[variant]
        assert layout.log_mel(torch.zeros(1, 8 * layout.mel.hop)).amin() == pytest.approx(value, abs=1e-6)


# Latents and sound ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["16k", "44k"])
def test_latents_are_the_mean_that_diffusers_finds_on_weights_fused_once(files, variant: str) -> None:
    codec = files(variant)
    net = diffusers_vae(variant, vae_state(variant))
    audio = sound(6 * codec.samples, clips=2)
    with torch.no_grad():
        if variant == "44k":  # whole, with its own front end; that of 16k always takes the natural logarithm
            theirs = net.encode(audio).latent_dist.mode()
        else:
            theirs = net.vae.encode(net.mel_converter(audio) / math.log(10))[:, :20]
    ours = codec.encode(audio, 6)
    assert ours.shape == (2, codec.channels, 6)
    assert ours.dtype == torch.float32
    assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("variant", ["16k", "44k"])
def test_sound_is_what_diffusers_vae_and_the_vocoder_make_of_latents(files, variant: str) -> None:
    codec = files(variant)
    z = torch.randn(2, codec.channels, 2, generator=torch.Generator().manual_seed(1))
    mel = diffusers_vae(variant, vae_state(variant)).decode(z).sample
    net = vocoder(variant)
    net.load_state_dict(vocoder_state(variant))
    theirs = naive_bigvgan(net, mel, tanh=variant == "16k").detach()[:, 0]
    ours = codec.decode(z)
    assert ours.shape == (2, 2 * codec.samples)
    assert ours.abs().max() <= 1
    assert relative(ours, theirs) < 1e-5


def naive_bigvgan(net: Any, mel: Tensor, tanh: bool) -> Tensor:
    x = net.conv_pre(mel)
    for i in range(6):
        x = net.ups[i][0](x)
        x = (net.resblocks[3 * i](x) + net.resblocks[3 * i + 1](x) + net.resblocks[3 * i + 2](x)) / 3
    x = net.conv_post(net.activation_post(x))
    return torch.tanh(x) if tanh else x.clamp(-1, 1)


def test_the_first_vocoder_ends_in_tanh_and_the_second_is_clamped() -> None:
    loud = 4 * torch.randn(1, 3, 50, generator=torch.Generator().manual_seed(0))
    last = TanhConv(3, 1, 7, padding=3)
    plain = nn.Conv1d(3, 1, 7, padding=3)
    plain.load_state_dict(last.state_dict())
    assert torch.equal(last(loud).clamp(-1, 1), torch.tanh(plain(loud)))
    assert not torch.allclose(torch.tanh(plain(loud)), plain(loud).clamp(-1, 1), atol=0.1)


# Weights fused exactly once ------------------------------------------------------------------------------------------


def test_fusing_is_edm2s_normalisation() -> None:
    weight = torch.randn(5, 384, 3, generator=torch.Generator().manual_seed(0))
    naive = torch.stack([f / (1e-4 + f.norm() / math.sqrt(f.numel())) / math.sqrt(f.numel()) for f in weight])
    torch.testing.assert_close(fuse(weight), naive, rtol=1e-6, atol=0)


def test_fusing_twice_shrinks_what_fusing_once_made() -> None:
    """Why it has to be exactly once: the second time, 1e-4 is not small beside elements of 1 / sqrt(1152)."""
    once = fuse(torch.randn(8, 384, 3, generator=torch.Generator().manual_seed(0)))
    ratio = fuse(once).norm() / once.norm()
    assert ratio == pytest.approx(1 - 0.0034, abs=2e-4)


@pytest.mark.parametrize("variant", ["16k", "44k"])
def test_raw_and_fused_weights_make_the_same_network(tmp_path: Path, variant: str) -> None:
    raw, layout = vae_state(variant), VARIANTS[variant]
    fused = fused_by_upstream(raw)
    reference = diffusers_vae(variant, raw).vae.state_dict()
    for state in (raw, fused):
        loaded = mel_vae(dict(state), layout, tmp_path).state_dict()
        assert max(relative(loaded[k], x) for k, x in reference.items()) < 1e-6
    # What a second pass would have done to the outputs is far above the tolerance of every parity test here.
    twice = diffusers_vae(variant, raw)
    twice.vae.load_state_dict(fused_by_upstream(fused))
    x = torch.randn(1, SIZES[variant][0], 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        once = mel_vae(dict(raw), layout, tmp_path).encode(x)
        assert relative(twice.vae.encode(x), once) > 3e-4


def test_a_dead_filter_does_not_hide_what_a_file_holds(tmp_path: Path) -> None:
    raw = vae_state("16k")
    raw["encoder.mid.block_1.conv1.weight"][3] = 0
    fused = fused_by_upstream(raw)
    for state in (raw, fused):
        loaded = mel_vae(dict(state), VARIANTS["16k"], tmp_path).state_dict()
        torch.testing.assert_close(loaded, fused, rtol=1e-6, atol=1e-9)


def test_a_file_fused_in_part_is_refused(tmp_path: Path) -> None:
    state = vae_state("16k")
    state["encoder.conv_in.weight"] = fuse(state["encoder.conv_in.weight"])
    with pytest.raises(ValueError, match=r"neither raw nor fused .* all in 1 of 53 layers \(as encoder\.conv_in\."):
        mel_vae(state, VARIANTS["16k"], tmp_path)
    fused = fused_by_upstream(state)
    fused["decoder.conv_in.weight"] = state["decoder.conv_in.weight"]  # ... and raw in part
    with pytest.raises(ValueError, match="all in 52 of 53 layers"):
        mel_vae(fused, VARIANTS["16k"], tmp_path)


def of_unit_norm(spread: float) -> dict[str, Tensor]:
    """Raw filters of elements near 1 / sqrt(fan), so of norms near 1: a fresh network, or one trained without fusing.

    Norms are 1 times a factor of the given spread, evenly, so that the share within 1 % is 0.02 / (2 spread).
    """
    g = torch.Generator().manual_seed(3)
    state = vae_state("16k")
    for name, tensor in state.items():
        if tensor.ndim == 3 and name.endswith(".weight"):
            norm = 1 + spread * (2 * torch.rand(len(tensor), 1, 1, generator=g) - 1)
            state[name] = tensor / tensor.flatten(1).norm(dim=1)[:, None, None] * norm
    return state


def encoded_by_upstream(state: dict[str, Tensor], path: Path) -> Tensor:
    """What MMAudio makes of a file's weights, which it normalises once, whatever they are."""
    audio = sound(4 * 512)
    net = diffusers_vae("16k", state)
    with torch.no_grad():
        return net.vae.encode(VARIANTS["16k"].log_mel(audio))[:, :20]


def test_raw_filters_of_norms_near_one_are_normalised_as_upstream_does(tmp_path: Path) -> None:
    state = of_unit_norm(0.05)  # a fifth of the filters within 1 %, more than four fifths within 5
    save_file(state, tmp_path / "raw.safetensors")
    z = MMAudio("16k", tmp_path / "raw.safetensors").encode(sound(4 * 512), 4)
    assert relative(z, encoded_by_upstream(state, tmp_path)) < 1e-5
    taken = MMAudio("16k", tmp_path / "raw.safetensors", fused=True).encode(sound(4 * 512), 4)
    assert relative(taken, z) > 1e-2  # what taking them for fused would have done in silence


def test_what_is_neither_raw_nor_fused_is_asked_for(tmp_path: Path) -> None:
    state = of_unit_norm(0.0143)  # 70 %
    save_file(state, tmp_path / "x.safetensors")
    audio = sound(4 * 512)
    with pytest.raises(ValueError, match=r"x\.safetensors is neither raw nor fused .*: (6|7)\d% .*`fused: true` or"):
        MMAudio("16k", tmp_path / "x.safetensors").encode(audio, 4)
    raw, fused = (MMAudio("16k", tmp_path / "x.safetensors", fused=said) for said in (False, True))
    assert relative(raw.encode(audio, 4), encoded_by_upstream(state, tmp_path)) < 1e-5
    as_it_is = diffusers_vae("16k", state)
    as_it_is.vae.load_state_dict(state)
    with torch.no_grad():
        theirs = as_it_is.vae.encode(VARIANTS["16k"].log_mel(audio))[:, :20]
    assert relative(fused.encode(audio, 4), theirs) < 1e-5
    assert raw.identity != fused.identity


def test_what_is_said_of_a_file_changes_its_codec_only_where_the_file_shows_otherwise(files) -> None:
    codec = files("16k")
    assert files("16k", fused=False).identity == codec.identity != files("16k", fused=True).identity


def test_a_codec_without_a_vocoder_encodes(files) -> None:
    codec = files("16k")
    alone = MMAudio("16k", codec.vae_source)
    assert torch.equal(alone.encode(sound(1024), 2), codec.encode(sound(1024), 2))
    assert alone.identity == codec.identity
    with pytest.raises(ValueError, match="was given no vocoder"):
        alone.decode(torch.zeros(1, 20, 2))


def test_statistics_that_divide_by_nothing_are_refused(tmp_path: Path) -> None:
    state = vae_state("16k")
    for name, bad, word in (("data_std", 0.0, "is not positive"), ("data_mean", float("nan"), "holds NaN")):
        worse = state[name].clone()
        worse[0, 7] = bad
        save_file(state | {name: worse}, tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match=f"x.safetensors.*{name}.*{word}"):
            MMAudio("16k", tmp_path / "x.safetensors").encode(sound(512), 1)


# Layouts -------------------------------------------------------------------------------------------------------------


def test_every_layout_is_the_same_codec(files, tmp_path: Path) -> None:
    codec = files("44k")
    audio, z = sound(4 * codec.samples), torch.randn(1, 40, 1, generator=torch.Generator().manual_seed(2))
    latents, heard = codec.encode(audio, 4), codec.decode(z)

    diffusers_vae("44k", vae_state("44k")).save_pretrained(tmp_path / "vae")
    net = vocoder("44k")
    net.load_state_dict(vocoder_state("44k"))
    net.save_pretrained(tmp_path / "vocoder")
    torch.save({"generator": normalised(vocoder_state("44k"), new=True)}, tmp_path / "new.pt")
    save_file(normalised(vocoder_state("44k"), new=False), tmp_path / "flat.safetensors")
    save_file(vae_state("44k"), tmp_path / "vae.safetensors")
    for vae, generator in (("vae", "vocoder"), ("vae.safetensors", "new.pt"), ("vae", "flat.safetensors")):
        other = MMAudio("44k", tmp_path / vae, tmp_path / generator)
        assert relative(other.encode(audio, 4), latents) < 1e-5
        assert relative(other.decode(z), heard) < 1e-5


@pytest.mark.parametrize(("variant", "vae", "vocoder_size"), [("16k", 171.657, 112.199), ("44k", 305.480, 122.153)])
def test_full_sizes_are_the_published_ones(monkeypatch, tmp_path: Path, variant, vae, vocoder_size) -> None:
    """Built as from the authors' files, on the meta device: nothing but the shapes of three layers is told."""
    monkeypatch.setattr("ccl.codecs.mmaudio.fill", lambda *args, **kwargs: None)
    monkeypatch.setattr("ccl.codecs.mmaudio.is_fused", lambda state, source: True)
    (bands, channels), layout = SIZES[variant], VARIANTS[variant]
    width = {"16k": 384, "44k": 512}[variant]
    with torch.device("meta"):
        convs = {
            "encoder.conv_in.weight": torch.empty(width, bands, 3),
            "encoder.conv_out.weight": torch.empty(2 * channels, 4 * width, 3),
            "conv_pre.weight": torch.empty(1536, bands, 7),
            "conv_post.weight": torch.empty(1, 24, 7),
            "data_std": torch.ones(1, bands, 1, device="cpu"),
        }
        if layout.bias:
            convs["conv_post.bias"] = torch.empty(1)
    nets = mel_vae(convs, layout, tmp_path), bigvgan(convs, layout, tmp_path)
    assert [sum(p.numel() for p in net.parameters()) / 1e6 for net in nets] == pytest.approx(
        [vae, vocoder_size], abs=1e-3
    )
    keys = [net.state_dict() for net in nets]
    # Weight normalisation makes two of one: the counts of the published files.
    halves = sum(x.ndim == 3 and name.endswith(".weight") for name, x in keys[1].items())
    assert (len(keys[0]), len(keys[1]) + halves) == (57, 784 if layout.bias else 783)


# Lengths and the interface -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "fps", "length"), [(81, 16.0, 158), (121, 24.0, 157), (241, 24.0, 313), (121, 25.0, 151)]
)
def test_latents_are_as_many_as_the_grid_says(files, frames: int, fps: float, length: int) -> None:
    codec = files("16k")
    grid = Grid(frames, fps, sample_rate=codec.sample_rate, latent_rate=codec.latent_rate)
    assert grid.t_a == length
    for samples in (grid.samples, grid.samples - 700, 5 * 16_000 + 9):
        assert codec.encode(sound(samples), grid.t_a).shape == (1, 20, length)


def test_natural_length_is_not_relied_upon(files) -> None:
    """5 s at 16 kHz are 156 latents to the network, 157 by MMAudio's and Ovi's rule."""
    codec = files("16k")
    audio = sound(80_000)
    network = codec.vae.on(audio.device)
    assert network.encode(codec.layout.log_mel(audio)).shape[2] == 156
    padded = torch.cat([audio, torch.zeros(1, 157 * 512 - 80_000)], 1)
    assert torch.equal(codec.encode(audio, 157), codec.encode(padded, 157))


def test_shapes_are_known_where_there_are_no_files() -> None:
    small, large = MMAudio("16k", "absent.pth", "absent.pt"), MMAudio("44k", "absent.pth", "absent.pt")
    assert (small.channels, small.sample_rate, small.latent_rate) == (20, 16_000, 31.25)
    assert (large.channels, large.sample_rate) == (40, 44_100)
    assert large.latent_rate == pytest.approx(43.066, abs=1e-3)


def test_networks_are_no_part_of_a_checkpoint_and_can_be_unloaded(files) -> None:
    codec = files("16k")
    before = codec.encode(sound(1024), 2)
    assert codec.state_dict() == {} and not list(codec.parameters())
    codec.unload()
    assert codec.vae.net is None and codec.vocoder.net is None
    assert torch.equal(codec.encode(sound(1024), 2), before)


def test_autocast_and_half_precision_do_not_reach_the_networks(files) -> None:
    codec = files("16k")
    audio = sound(1024)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(audio, 2), files("16k").encode(audio, 2))
    assert codec.decode(torch.zeros(1, 20, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_scale_multiplies_latents_and_is_taken_back(files) -> None:
    plain, scaled = files("44k"), files("44k", scale=0.417)
    audio = sound(2 * plain.samples)
    z = plain.encode(audio, 2)
    torch.testing.assert_close(scaled.encode(audio, 2), 0.417 * z)
    torch.testing.assert_close(scaled.decode(0.417 * z), plain.decode(z), rtol=1e-4, atol=1e-6)


def test_identity_follows_encoder_and_settings_alone(files, tmp_path: Path) -> None:
    codec = files("16k")
    assert codec.identity.startswith("mmaudio-16k-")
    assert codec.identity == MMAudio("16k", codec.vae_source, "another vocoder").identity
    assert codec.identity != files("16k", scale=0.5).identity
    state = vae_state("16k")
    for part, same in (("decoder.conv_in.weight", True), ("data_mean", False), ("encoder.conv_in.weight", False)):
        save_file(state | {part: state[part] * 2}, tmp_path / f"{part}.safetensors")
        assert (MMAudio("16k", tmp_path / f"{part}.safetensors", "").identity == codec.identity) is same, part


# Bad input -----------------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this ran",)


def test_a_bad_file_is_one_sentence(files, tmp_path: Path, capsys) -> None:
    good = files("16k")
    z, audio = torch.zeros(1, 20, 1), sound(512)

    def told(vae: Any = good.vae_source, generator: Any = good.vocoder_source, variant: Any = "16k") -> str:
        with pytest.raises(ValueError) as error:
            codec = MMAudio(variant, vae, generator)
            codec.encode(audio, 1)
            codec.decode(torch.zeros(1, codec.channels, 1))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "absent.pth" in told(vae=tmp_path / "absent.pth")
    (tmp_path / "cut.pth").write_bytes(Path(good.vae_source).read_bytes()[:1000])
    assert "cut.pth cannot be read as weights" in told(vae=tmp_path / "cut.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}))
    assert "evil.pth cannot be read as weights" in told(vae=tmp_path / "evil.pth")
    assert "this ran" not in capsys.readouterr().out
    assert "has 80 mel bands and 20 channels; the variant has 128 and 40" in told(variant="44k")
    assert "no convolution encoder.conv_in.weight" in told(vae=good.vocoder_source)
    assert "no convolution conv_pre.weight" in told(generator=good.vae_source)
    other = files("44k")
    assert "is BigVGAN v2 (no bias in conv_post) for 128 mel bands; the variant needs BigVGAN v1" in told(
        generator=other.vocoder_source
    )
    state = normalised(vocoder_state("16k"), new=False)
    del state["ups.2.0.weight_g"]
    torch.save(state, tmp_path / "half.pt")
    assert "lacks ups.2.0.weight_g, one half of a normalised weight" in told(generator=tmp_path / "half.pt")
    vae = vae_state("16k")
    del vae["data_std"]
    torch.save(vae, tmp_path / "lacking.pth")
    assert "data_std" in told(vae=tmp_path / "lacking.pth")
    with pytest.raises(ValueError, match=r"z is Tensor .*; it must be a tensor \(B, 20, T\)"):
        good.decode(z[:, :16])
    with pytest.raises(ValueError, match="length is 0; it must be a whole number of at least 1"):
        good.encode(audio, 0)
    with pytest.raises(ValueError, match="scale is 0; latents are multiplied by a positive number"):
        files("16k", scale=0.0)
