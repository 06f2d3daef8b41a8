"""LTX-2's audio codec against diffusers' own networks and transformers' mel spectrogram, on random weights."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ccl.codecs.ltx2 import LTX2Audio, log_mel
from ccl.grid import Grid

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """A folder as diffusers saves a pipeline, its networks narrow."""
    from diffusers import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    folder = tmp_path_factory.mktemp("ltx2")
    torch.manual_seed(0)
    # As many base channels as latent numbers: the statistics' size goes by the former.
    vae = AutoencoderKLLTX2Audio(base_channels=128, ch_mult=(1, 1, 1), num_res_blocks=1)
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2)
    vae.save_pretrained(folder / "audio_vae")
    LTX2Vocoder(hidden_channels=32, resnet_kernel_sizes=[3], resnet_dilations=[[1]]).save_pretrained(folder / "vocoder")
    return folder


@pytest.fixture(scope="module")
def codec(pipeline: Path) -> LTX2Audio:
    return LTX2Audio(pipeline, pipeline)


@pytest.fixture(scope="module")
def networks(pipeline: Path) -> tuple[Any, Any]:
    from diffusers import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    return (
        AutoencoderKLLTX2Audio.from_pretrained(pipeline / "audio_vae").eval(),
        LTX2Vocoder.from_pretrained(pipeline / "vocoder").eval(),
    )


def chord(rate: int, seconds: float) -> Tensor:
    """The same sound at any rate: tones below 7 kHz that swell."""
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    tones = sum(torch.sin(2 * math.pi * hz * t + hz) for hz in (90.0, 440.0, 1234.5, 3210.0, 6900.0))
    return (0.1 * tones * (0.2 + t))[None].float()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def upstream_log_mel(audio: np.ndarray, frames: int) -> Tensor:
    """As LTX-2 has it of 16 kHz: centred frames of 1024 samples every 160, Slaney's bands and norm, ln."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    filters = mel_filter_bank(513, 64, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    mel = spectrogram(
        audio, window_function(1024, "hann"), 1024, 160, 1024,
        power=1.0, center=True, pad_mode="reflect", mel_filters=filters, mel_floor=1e-5, log_mel="log",
    )  # fmt: skip
    return torch.tensor(mel[:, :frames], dtype=torch.float32)[None]


def test_log_mel_of_24_khz_is_that_of_the_same_sound_at_16_khz() -> None:
    frames = 4 * 12 - 3
    theirs = upstream_log_mel(chord(16_000, 12 / 25)[0].double().numpy(), frames)
    ours = log_mel(chord(24_000, 12 / 25))[:, :, :frames]
    # Frames 0 to 3 read mirrored samples: the kink has no end of overtones, which alias differently at the two rates.
    assert relative(ours[:, :, 4:].exp(), theirs[:, :, 4:].exp()) < 1e-6
    assert (ours - theirs)[:, :, 4:].abs().max() < 2e-3
    assert relative(ours[:, :, :4].exp(), theirs[:, :, :4].exp()) < 1e-2


def test_latents_are_normalised_means_of_the_doubled_sound(codec: LTX2Audio, networks) -> None:
    vae, _ = networks
    audio = torch.cat([chord(24_000, 6 / 25), chord(24_000, 6 / 25).flip(1)])
    mel = log_mel(audio)[:, :, :21].transpose(1, 2)
    with torch.no_grad():
        mean = vae.encode(torch.stack([mel, mel], 1)).latent_dist.mode()
    packed = mean.transpose(1, 2).flatten(2, 3)  # as the pipeline packs them, (B, T, C * M)
    theirs = ((packed - vae.latents_mean) / vae.latents_std).transpose(1, 2)
    ours = codec.encode(audio, 6)
    assert ours.shape == (2, 128, 6)
    assert relative(ours, theirs) < 1e-5


def test_sound_is_the_mean_of_both_ears_of_the_vocoder(codec: LTX2Audio, networks) -> None:
    from diffusers import LTX2Pipeline

    vae, vocoder = networks
    z = torch.randn(2, 128, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        packed = LTX2Pipeline._denormalize_audio_latents(z.transpose(1, 2), vae.latents_mean, vae.latents_std)
        theirs = vocoder(vae.decode(LTX2Pipeline._unpack_audio_latents(packed, 3, num_mel_bins=16)).sample)
    assert theirs.shape == (2, 2, (4 * 3 - 3) * 240)
    ours = codec.decode(z)
    assert ours.shape == (2, 3 * 960)
    assert relative(ours[:, : theirs.shape[2]], theirs.mean(1)) < 1e-5
    assert not ours[:, theirs.shape[2] :].any()
    assert ours.abs().max() <= 1


def test_a_longer_sound_begins_with_the_same_latents(codec: LTX2Audio) -> None:
    """Causal, so that cutting the count of latents cuts nothing else; and the caller's count is what comes."""
    audio = chord(24_000, 8 / 25)
    torch.testing.assert_close(codec.encode(audio, 8)[:, :, :5], codec.encode(audio[:, : 5 * 960 + 7], 5))
    assert codec.encode(audio, 11).shape == (1, 128, 11)


def test_the_grid_counts_25_latents_a_second(codec: LTX2Audio) -> None:
    grid = Grid(121, 24.0, sample_rate=codec.sample_rate, latent_rate=codec.latent_rate)
    assert (grid.t_a, grid.samples) == (126, 121_000)
    assert codec.encode(torch.zeros(1, grid.samples), grid.t_a).shape == (1, 128, 126)


def test_networks_are_no_part_of_a_checkpoint_and_can_be_unloaded(codec: LTX2Audio) -> None:
    before = codec.encode(chord(24_000, 2 / 25), 2)
    assert codec.state_dict() == {} and not list(codec.parameters())
    codec.unload()
    assert codec.vae.net is None and codec.vocoder.net is None
    assert torch.equal(codec.encode(chord(24_000, 2 / 25), 2), before)


def test_identity_follows_encoder_and_statistics_alone(codec: LTX2Audio, pipeline: Path, tmp_path: Path) -> None:
    assert codec.identity.startswith("ltx2-audio-")
    assert codec.identity == LTX2Audio(pipeline / "audio_vae", "another vocoder").identity
    state = load_file(pipeline / "audio_vae" / WEIGHTS)
    parts = {"decoder.conv_in.conv.weight": True, "latents_std": False, "encoder.conv_in.conv.weight": False}
    for part, same in parts.items():
        (tmp_path / part).mkdir()
        save_file(state | {part: state[part] * 2}, tmp_path / part / WEIGHTS)
        assert (LTX2Audio(tmp_path / part, "").identity == codec.identity) is same, part


def test_full_sizes_are_the_published_ones() -> None:
    from diffusers import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    with torch.device("meta"):
        nets = AutoencoderKLLTX2Audio(), LTX2Vocoder()
    assert [sum(p.numel() for p in n.parameters()) / 1e6 for n in nets] == pytest.approx([53.248, 55.593], abs=1e-3)


def test_a_bad_folder_is_one_sentence(codec: LTX2Audio, pipeline: Path, tmp_path: Path) -> None:
    def told(vae: Path = pipeline, vocoder: Path = pipeline) -> str:
        with pytest.raises(ValueError) as error:
            other = LTX2Audio(vae, vocoder)
            other.encode(torch.zeros(1, 960), 1)
            other.decode(torch.zeros(1, 128, 1))
        assert "\n" not in str(error.value)
        return str(error.value)

    def changed(part: str, name: str, **values: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = json.loads((pipeline / part / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))
        (folder / WEIGHTS).symlink_to(pipeline / part / WEIGHTS)
        return folder

    assert "absent" in told(vae=tmp_path / "absent")
    assert "there is no" in told(vae=tmp_path)
    assert "is of LTX2Vocoder; AutoencoderKLLTX2Audio is needed" in told(vae=pipeline / "vocoder")
    assert "has mel_bins = 80; the codec needs 64" in told(vae=changed("audio_vae", "a", mel_bins=80))
    deeper = changed("vocoder", "b", resnet_kernel_sizes=[3, 7], resnet_dilations=[[1], [1]])
    assert "keys of LTX2Vocoder" in told(vocoder=deeper)
    wide = changed("vocoder", "c", _class_name="LTX2VocoderWithBWE")
    assert "is of LTX2VocoderWithBWE; LTX2Vocoder is needed" in told(vocoder=wide)
    with pytest.raises(ValueError, match=r"z is Tensor .*; it must be a tensor \(B, 128, T\)"):
        codec.decode(torch.zeros(1, 20, 2))
    with pytest.raises(ValueError, match="length is 0; it must be a whole number of at least 1"):
        codec.encode(torch.zeros(1, 960), 0)


def test_statistics_of_another_size_are_refused_and_no_vocoder_is_needed_to_encode(pipeline, codec, tmp_path) -> None:
    alone = LTX2Audio(pipeline)
    audio = chord(24_000, 0.2)
    assert torch.equal(alone.encode(audio, 5), codec.encode(audio, 5))
    with pytest.raises(ValueError, match="was given no vocoder"):
        alone.decode(torch.zeros(1, 128, 2))
    vae = tmp_path / "audio_vae"
    shutil.copytree(pipeline / "audio_vae", vae)
    state = load_file(vae / WEIGHTS)
    save_file(state | {"latents_std": -state["latents_std"]}, vae / WEIGHTS)
    with pytest.raises(ValueError, match=r"std is -[\d.]+ in a channel; it must be positive"):
        LTX2Audio(tmp_path).encode(audio, 5)
