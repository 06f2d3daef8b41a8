"""Wan's VAE: diffusers' AutoencoderKLWan with random weights, saved as published files are, is the oracle."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ccl.codecs import Codec, EmbeddedAudio
from ccl.codecs.wan import ORIGINAL, WanVideo, blank, locate, read_state
from ccl.weights.catalogue import TABLE

TINY = {"base_dim": 8}  # all else as Wan2.1's
TINY_22 = {
    "base_dim": 8,
    "decoder_base_dim": 12,
    "z_dim": 6,
    "num_res_blocks": 1,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.1 * i for i in range(6)],
    "latents_std": [1 + 0.1 * i for i in range(6)],
}

# diffusers' names to those of Wan's release, written down from Wan's module tree.
RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}


def original(name: str) -> str:
    """The name in Wan2.1_VAE.pth of a parameter of AutoencoderKLWan."""
    if name.startswith(("quant_conv", "post_quant_conv")):
        return name.replace("post_quant_conv", "conv2").replace("quant_conv", "conv1")
    name = re.sub(r"(encoder|decoder)\.conv_in", r"\1.conv1", name)
    name = name.replace("norm_out", "head.0").replace("conv_out", "head.2")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"middle.{2 * int(m[1])}", name)
    name = name.replace("mid_block.attentions.0", "middle.1").replace("down_blocks", "downsamples")
    name = re.sub(
        r"up_blocks\.(\d)\.(resnets|upsamplers)\.(\d)",
        lambda m: f"upsamples.{4 * int(m[1]) + (3 if m[2] == 'upsamplers' else int(m[3]))}",
        name,
    )
    name = name.replace("conv_shortcut", "shortcut")
    for ours, theirs in RESIDUAL.items():
        name = re.sub(rf"\.(\d+)\.{ours}\.", rf".\1.{theirs}.", name)
    return name


def autoencoder(config: dict) -> AutoencoderKLWan:
    torch.manual_seed(0)
    net = AutoencoderKLWan(**config).eval().requires_grad_(False)
    for name, p in net.named_parameters():
        if "gamma" in name:
            p.normal_(1.0, 0.2)
    return net


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    return autoencoder(TINY)


@pytest.fixture(scope="module")
def folder(vae: AutoencoderKLWan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder with the VAE in it."""
    folder = tmp_path_factory.mktemp("pipeline")
    vae.save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def release(vae: AutoencoderKLWan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Wan releases it: the VAE's file beside a config.json that is the transformer's."""
    folder = tmp_path_factory.mktemp("release")
    torch.save({original(name): tensor for name, tensor in vae.state_dict().items()}, folder / ORIGINAL)
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 1536}))
    return folder


def pictures(frames: int = 9, height: int = 32, width: int = 24, batch: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, frames, height, width, generator=g) * 2 - 1


def statistics(net: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(x).view(1, -1, 1, 1, 1) for x in (net.config.latents_mean, net.config.latents_std))


def normalised(net: AutoencoderKLWan, video: Tensor) -> Tensor:
    mean, std = statistics(net)
    return (net.encode(video).latent_dist.mode() - mean) / std


def decoded(net: AutoencoderKLWan, z: Tensor) -> Tensor:
    mean, std = statistics(net)
    return net.decode(z * std + mean).sample


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_latents_are_diffusers_normalised_to_what_wan_sees(vae, folder):
    video = pictures()
    z = WanVideo(folder).encode(video)
    assert z.shape == (2, 16, 3, 4, 3) and z.dtype == torch.float32
    assert relative(z, normalised(vae, video)) < 1e-6


def test_pictures_are_diffusers(vae, folder):
    z = torch.randn(2, 16, 3, 4, 3, generator=torch.Generator().manual_seed(2))
    codec = WanVideo(folder)
    assert codec.decode(z).shape == (2, 3, 9, 32, 24)
    assert relative(codec.decode(z), decoded(vae, z)) < 1e-5


def test_an_image_is_a_video_of_one_frame(vae, folder):
    codec, video = WanVideo(folder), pictures()
    first = codec.encode(video[:, :, :1])
    assert first.shape[2] == 1
    assert relative(first, codec.encode(video)[:, :, :1]) < 1e-5  # causal
    assert codec.decode(first).shape == (2, 3, 1, 32, 24)


def test_a_folder_of_the_vae_alone_and_both_layouts_give_the_same_latents(folder, release):
    video = pictures(5)
    z = [WanVideo(path).encode(video) for path in (folder, folder / "vae", release, release / ORIGINAL)]
    assert all(relative(z[0], other) < 1e-6 for other in z[1:])


def test_names_go_to_wans_layout_and_back(vae, folder, release):
    state = vae.state_dict()
    names = {original(name) for name in state}
    assert len(names) == len(state)
    assert {"encoder.downsamples.0.residual.0.gamma", "decoder.upsamples.4.shortcut.weight", "conv2.bias"} < names
    back = read_state(release / ORIGINAL)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_wan21_has_194_keys_and_127_million_parameters(folder):
    net = blank(locate(folder)[1] | {"base_dim": 96})
    assert len(net.state_dict()) == 194
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(126.9e6, rel=1e-3)
    assert all(p.is_meta for p in net.parameters())


def test_the_later_vae_is_read_by_its_own_config(tmp_path):
    net = autoencoder(TINY_22)
    net.save_pretrained(tmp_path)
    codec = WanVideo(tmp_path, channels=6, stride_space=16)
    video = pictures(9, 32, 48)
    z = codec.encode(video)
    assert z.shape == (2, 6, 3, 2, 3)
    assert relative(z, normalised(net, video)) < 1e-6
    assert relative(codec.decode(z), decoded(net, z)) < 1e-5


# Streaming


def test_pieces_put_together_are_the_whole(vae, folder):
    z = torch.randn(1, 16, 4, 4, 3, generator=torch.Generator().manual_seed(3))
    pieces = list(WanVideo(folder).stream(z))
    assert [piece.shape[2] for piece in pieces] == [1, 4, 4, 4]
    assert relative(torch.cat(pieces, 2), decoded(vae, z)) < 1e-5


def test_a_piece_is_computed_when_it_is_asked_for(folder, monkeypatch):
    codec, calls = WanVideo(folder), []
    piece = codec._piece
    monkeypatch.setattr(codec, "_piece", lambda *args, **kwargs: calls.append(1) or piece(*args, **kwargs))
    stream = codec.stream(torch.zeros(1, 16, 9, 2, 2))
    assert calls == []
    next(stream), next(stream)
    assert len(calls) == 2


def test_what_is_carried_between_pieces_does_not_grow(folder, monkeypatch):
    codec, carried = WanVideo(folder), []
    piece = codec._piece

    def measured(net, z, features, *, first):
        out = piece(net, z, features, first=first)
        carried.append(sum(x.untyped_storage().nbytes() for x in features if isinstance(x, Tensor)))
        return out

    monkeypatch.setattr(codec, "_piece", measured)
    codec.decode(torch.zeros(1, 16, 8, 2, 2))
    assert len(carried) == 8
    assert len(set(carried[2:])) == 1


def test_two_videos_can_be_decoded_in_turn(folder):
    codec = WanVideo(folder)
    a, b = torch.randn(2, 1, 16, 3, 2, 2, generator=torch.Generator().manual_seed(4))
    turns = list(zip(codec.stream(a), codec.stream(b), strict=True))
    assert torch.equal(torch.cat([pair[0] for pair in turns], 2), codec.decode(a))
    assert torch.equal(torch.cat([pair[1] for pair in turns], 2), codec.decode(b))


def test_a_piece_leaves_gradients_and_autocast_of_others_as_they_were(folder):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        next(WanVideo(folder).stream(torch.zeros(1, 16, 2, 2, 2)))
        assert torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")


def test_clips_go_together_or_one_by_one(folder):
    video = pictures(5)
    one, two = WanVideo(folder), WanVideo(folder, clips=2)
    assert relative(two.encode(video), one.encode(video)) < 1e-5
    assert relative(two.decode(one.encode(video)), one.decode(one.encode(video))) < 1e-5


def test_tiles_are_diffusers_tiles_and_not_exact(vae, folder):
    video = pictures(5, 16, 272, batch=1)
    tiled, whole = WanVideo(folder, tiling=True), WanVideo(folder)
    z = tiled.encode(video)
    assert relative(z, whole.encode(video)) > 1e-3
    net = autoencoder(TINY)
    net.enable_tiling()
    assert relative(z, normalised(net, video)) < 1e-6
    assert relative(tiled.decode(z), decoded(net, z)) < 1e-5
    assert len(list(tiled.stream(z))) == 1


# Precision, memory and where the network lives


def test_latents_stay_float32_whatever_the_network_computes_in(folder):
    video = pictures(5)
    fine, coarse = WanVideo(folder), WanVideo(folder, dtype="bfloat16")
    z = coarse.encode(video)
    assert z.dtype == torch.float32 and coarse.decode(z).dtype == torch.float32
    assert 1e-6 < relative(z, fine.encode(video)) < 0.05


def test_autocast_does_not_coarsen_the_codec(folder):
    codec, video = WanVideo(folder), pictures(5)
    z = codec.encode(video)
    fine = codec.decode(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codec.encode(video), z)
        assert torch.equal(codec.decode(z), fine)


def test_a_codec_knows_its_shape_where_no_weights_are_and_carries_nothing(folder):
    absent = WanVideo("nowhere/at-all")
    assert (absent.channels, absent.stride_time, absent.stride_space) == (16, 4, 8)
    codec = Codec(WanVideo(folder), EmbeddedAudio())
    codec.video.encode(pictures(1))
    assert [name for name in codec.state_dict() if name.startswith("video")] == []
    assert list(codec.video.parameters()) == [] and list(codec.video.modules()) == [codec.video]
    assert not any(p.requires_grad for p in codec.video.network.net.parameters())


def test_an_unloaded_network_comes_back(folder):
    codec, video = Codec(WanVideo(folder), EmbeddedAudio()), pictures(1)
    z = codec.video.encode(video)
    codec.unload()
    assert codec.video.network.net is None
    assert torch.equal(codec.video.encode(video), z)


# Identity


def test_identity_is_of_the_vae_not_of_how_it_was_saved(vae, folder, release, tmp_path):
    autoencoder(TINY).to(torch.bfloat16).save_pretrained(tmp_path)
    names = {WanVideo(path).identity for path in (folder, folder / "vae", release, release / ORIGINAL, tmp_path)}
    assert len(names) == 1
    assert re.fullmatch(r"wan-video-16-[0-9a-f]{12}", names.pop())


@pytest.mark.parametrize(
    ("part", "same"), [("encoder.conv_in.weight", False), ("quant_conv.bias", False), ("decoder.conv_in.weight", True)]
)
def test_identity_notices_the_encoder_and_not_the_decoder(folder, tmp_path, part, same):
    net = autoencoder(TINY)
    net.get_parameter(part).add_(0.1)
    net.save_pretrained(tmp_path)
    assert (WanVideo(tmp_path).identity == WanVideo(folder).identity) is same


def test_identity_notices_the_normalisation_and_a_file_that_changed(folder, tmp_path):
    shutil.copytree(folder / "vae", tmp_path / "vae")
    codec = WanVideo(tmp_path)
    before = codec.identity
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    config["latents_std"][3] *= 2
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config))
    renormalised = codec.identity
    net = autoencoder(TINY)
    net.encoder.conv_in.weight.add_(0.1)
    net.save_pretrained(tmp_path / "vae")
    assert len({before, renormalised, codec.identity}) == 3


# Bad input


@pytest.mark.parametrize("frames", [2, 4, 80])
def test_frames_that_would_be_dropped_are_refused(folder, frames):
    with pytest.raises(ValueError, match=rf"video has {frames} frames; the codec needs 4k \+ 1"):
        WanVideo(folder).encode(pictures(frames, 8, 8, 1))


def test_sizes_and_channels_that_do_not_fit_are_named(folder):
    with pytest.raises(ValueError, match="video is 12 x 16; the codec needs multiples of 8 pixels"):
        WanVideo(folder).encode(pictures(1, 12, 16))
    with pytest.raises(ValueError, match=r"z is Tensor .*; it must be a tensor \(B, 16, T, H, W\)"):
        WanVideo(folder).decode(torch.zeros(1, 8, 1, 2, 2))
    with pytest.raises(ValueError, match="clips is 0"):
        WanVideo(folder, clips=0)


def test_weights_of_other_strides_are_refused(tmp_path):
    autoencoder(TINY_22).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="6 channels and strides 4 x 16 x 16; the video codec is set to 16 channels"):
        _ = WanVideo(tmp_path).identity


def test_a_repository_that_is_not_here_names_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    name = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    with pytest.raises(
        ValueError, match=f"is {name}, which is not on this machine: `ccl weights fetch wan2.1-t2v-1.3b`"
    ):
        WanVideo(name).encode(pictures(1))
    with pytest.raises(ValueError, match="`hf download nobody/nothing`"):
        _ = WanVideo("nobody/nothing").identity
    with pytest.raises(ValueError, match="there is no file or folder /no/such/place, given as Wan's video VAE"):
        _ = WanVideo("/no/such/place").identity


def test_a_fetched_repository_is_found_by_its_name(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    (tmp_path / TABLE["wan2.1-t2v-1.3b"].file).symlink_to(folder)
    assert WanVideo("Wan-AI/Wan2.1-T2V-1.3B-Diffusers").identity == WanVideo(folder).identity


def test_another_networks_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"holds nothing of Wan's video VAE: no config.json.* no {ORIGINAL}"):
        locate(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "WanTransformer3DModel"}')
    with pytest.raises(ValueError, match=r"config\.json is of WanTransformer3DModel, not of Wan's video VAE"):
        locate(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read as JSON"):
        locate(tmp_path)


def test_a_truncated_file_is_named(folder, tmp_path):
    shutil.copytree(folder / "vae", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    for use in (lambda codec: codec.encode(pictures(1)), lambda codec: codec.identity):
        with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as weights"):
            use(WanVideo(tmp_path))
    file.unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        _ = WanVideo(tmp_path).identity


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


@pytest.mark.parametrize("content", [{"encoder.conv1.weight": Bomb()}, {"encoder": {"x": torch.zeros(1)}}, [1]])
def test_a_file_that_would_run_code_or_holds_no_tensors_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content, ORIGINAL)
    with pytest.raises(ValueError, match=f"{ORIGINAL} (cannot be read as weights|holds no table of named tensors)"):
        WanVideo(tmp_path).encode(pictures(1))
    assert not Path("bomb-went-off").exists()


def test_keys_that_lack_or_are_too_many_are_named(vae, tmp_path):
    state = {original(name): tensor for name, tensor in vae.state_dict().items()}
    path = tmp_path / ORIGINAL
    cases = {
        "lacks 1 keys of AutoencoderKLWan, the first is decoder.conv_out.bias": {"decoder.head.2.bias": None},
        "has 1 keys that AutoencoderKLWan has not, the first is encoder.down_blocks.99.x": {
            "encoder.downsamples.99.x": torch.zeros(1)
        },
        r"decoder.conv_out.bias is \(4,\), and \(3,\) in AutoencoderKLWan": {"decoder.head.2.bias": torch.zeros(4)},
        "no VAE of Wan2.1's: it has no conv2.weight": {"conv2.weight": None},
        "Wan2.2's VAE in Wan's own layout": {"encoder.downsamples.0.downsamples.0.x": torch.zeros(1)},
    }
    for message, change in cases.items():
        torch.save({name: x for name, x in (state | change).items() if x is not None}, path)
        with pytest.raises(ValueError, match=message):
            WanVideo(path).encode(pictures(1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latents_mean": [0.0]}, r"mean has shape \(1,\); \(16,\) is needed"),  # would be broadcast in silence
        ({"latents_std": [1.0] * 6}, r"std has shape \(6,\); \(16,\) is needed"),
        ({"latents_std": [1.0] * 15 + [0.0]}, "std is 0 in a channel; it must be positive"),
        ({"latents_mean": [float("nan")] * 16}, "mean holds NaN or infinity"),
        ({"latents_mean": None}, "are no lists of numbers"),
    ],
)
def test_statistics_that_latents_cannot_be_normalised_by_are_refused_before_a_clip(folder, tmp_path, settings, said):
    shutil.copytree(folder / "vae", tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config | settings))
    codec = WanVideo(tmp_path / "vae")
    for use in (
        lambda: codec.identity,
        lambda: codec.encode(pictures()),
        lambda: codec.decode(torch.zeros(1, 16, 1, 2, 2)),
    ):
        with pytest.raises(ValueError, match=said):
            use()
    with pytest.raises(ValueError, match="channels is 0; it must be positive"):
        WanVideo(tmp_path, channels=0)
