"""Pretrained weights as users have them: every layout in, the video stream out again, and what does not fit told."""

from __future__ import annotations

import pickle
import signal
from dataclasses import replace
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from ccl import cli
from ccl.files import FileError
from ccl.interaction import CCA, TARP, Gate, Global
from ccl.model import DualStreamTransformer, OviAudioStream, WanStream
from ccl.model.keys import diffusers_to_wan, ours_to_wan, wan_to_diffusers, wan_to_ours
from ccl.model.load import LoadReport, load_stream, load_wan, match
from ccl.model.save import save_diffusers, save_file_of_wan
from ccl.model.stored import Stored
from ccl.storage.model_folder import save_model
from helpers import ROOT
from helpers.forked import call
from helpers.memory import loading
from helpers.wan_streams import (
    GRID,
    alone,
    as_shards_of_wan,
    awake,
    inputs,
    original,
    ours,
    ours_i2v,
    ours_ovi,
    refused,
    relative,
    shown,
    wan,
    wan_i2v,
)


def as_file(model: WanTransformer3DModel, folder: Path) -> Path:
    save_file(original(model), folder / "diffusion_pytorch_model.safetensors")
    return folder / "diffusion_pytorch_model.safetensors"


def as_pth(model: WanTransformer3DModel, folder: Path) -> Path:
    torch.save(
        {"state_dict": {f"model.diffusion_model.{k}": v for k, v in original(model).items()}}, folder / "wan.pth"
    )
    return folder / "wan.pth"


def as_old_pth(model: WanTransformer3DModel, folder: Path) -> Path:
    torch.save(original(model), folder / "wan.pth", _use_new_zipfile_serialization=False)
    return folder / "wan.pth"


def as_diffusers(model: WanTransformer3DModel, folder: Path) -> Path:
    model.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def as_pipeline(model: WanTransformer3DModel, folder: Path) -> Path:
    model.save_pretrained(folder / "transformer")
    (folder / "vae").mkdir()
    (folder / "model_index.json").write_text("{}")
    return folder


LAYOUTS = {f.__name__: f for f in (as_file, as_pth, as_old_pth, as_shards_of_wan, as_diffusers, as_pipeline)}


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_every_layout_gives_what_diffusers_computes(layout: str, tmp_path: Path) -> None:
    theirs, net = wan(), ours()
    report = load_wan(net, LAYOUTS[layout](theirs, tmp_path))
    assert len(report.loaded) == len(theirs.state_dict()) and report.unexpected == ()
    x, text = inputs()
    t = torch.tensor([0.25, 0.75])
    assert relative(alone(net, x, t, text), theirs(x, 1000 * t, text).sample) < 1e-5


@pytest.mark.parametrize("layout", ["as_file", "as_diffusers"])
@torch.no_grad()
def test_the_image_backbone_loads_from_both_layouts(layout: str, tmp_path: Path) -> None:
    theirs, net = wan_i2v(), ours_i2v()
    load_wan(net, LAYOUTS[layout](theirs, tmp_path))
    x, text = inputs(length=512)
    image, condition = shown(x)
    t = torch.tensor([0.25, 0.75])
    expected = theirs(torch.cat([x, condition], 1), 1000 * t, text, image.states).sample
    assert relative(alone(net, x, t, text, extras={"image": image}), expected) < 1e-5


def test_the_report_says_what_is_new(tmp_path: Path) -> None:
    net = ours(interaction=lambda widths: CCA(widths, TARP("proportional")))
    before = {name: p.clone() for name, p in net.named_parameters()}
    report = load_wan(net, as_file(wan(), tmp_path))
    assert report.streams == ("video",) and report.missing == ()
    assert set(report.loaded) | set(report.new) == set(before)
    assert all(torch.equal(dict(net.named_parameters())[name], before[name]) for name in report.new)
    said = str(report)
    assert f"{len(report.loaded)} tensors of the video stream loaded" in said
    assert "new, as initialised" in said and "interaction" in said and "audio" in said


def test_key_maps_are_inverse() -> None:
    for key in wan_i2v().state_dict():
        own = diffusers_to_wan(key)
        assert wan_to_diffusers(own) == key and diffusers_to_wan(own) == own
        assert ours_to_wan(wan_to_ours(own)) == own == ours_to_wan(wan_to_ours(own, "audio"))
    with pytest.raises(ValueError, match="belongs to no stream"):
        ours_to_wan("blocks.0.interaction.a2v.q.weight")


# Ovi


def ovi(seed: int = 5) -> tuple[DualStreamTransformer, dict[str, Tensor]]:
    """A network, and its weights as Ovi's file names them, fusion included."""
    net = awake(ours_ovi(OviAudioStream(64, 96, 4, hidden=40)), seed)
    state = {}
    for key, value in net.state_dict().items():
        tower = "audio_model." if "audio." in key else "video_model."
        name = ours_to_wan(key)
        state[tower + (f"{name}.modulation" if name.startswith("blocks") and name.endswith("modulation") else name)] = (
            value
        )
    for tower in ("video_model", "audio_model"):
        for block in range(2):
            at = f"{tower}.blocks.{block}.cross_attn."
            names = ("k_fusion.weight", "k_fusion.bias", "v_fusion.weight", "v_fusion.bias")
            norms = ("pre_attn_norm_fusion.weight", "pre_attn_norm_fusion.bias", "norm_k_fusion.weight")
            state |= {at + name: torch.ones(64, 64) if "fusion.w" in name else torch.ones(64) for name in names + norms}
    return net, state


def test_ovi_s_file_fills_both_streams_and_its_fusion_is_reported(tmp_path: Path) -> None:
    source, state = ovi()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    net = ours_ovi(
        OviAudioStream(64, 96, 4, hidden=40),
        interaction=lambda widths: CCA(widths, TARP("proportional")),
    )
    report = load_wan(net, tmp_path / "model.safetensors")
    assert report.streams == ("video", "audio")
    assert len(report.unexpected) == 28 and all("fusion" in key for key in report.unexpected)
    assert all("interaction" in name for name in report.new)
    own = dict(net.named_parameters())
    assert all(torch.equal(own[name], p) for name, p in source.named_parameters())
    assert "in the file and unused: 28 (fusion 28)" in str(report)


FUSION = (  # a gate that reads its keys and values as Ovi's fusion does, and has a few linears more
    (r"\.video\.cross_attn\.([kv])_fusion\.", r".interaction.a2v.\1."),
    (r"\.audio\.cross_attn\.([kv])_fusion\.", r".interaction.v2a.\1."),
)


def test_an_interaction_that_knows_its_published_names_is_read_whole_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "upstream", FUSION)
    gated = ours_ovi(OviAudioStream(64, 96, 4, hidden=40), interaction=lambda site: Gate(site, Global()))
    state = ovi()[1]
    with pytest.raises(
        ValueError, match=r"it: the checkpoint lacks \d+ keys, the first is blocks\.0\.interaction\.a2v\."
    ):
        load_stream(gated, state, source="it")
    key = "audio_model.blocks.1.cross_attn.v_fusion.weight"
    report = match(gated, {name: tuple(value.shape) for name, value in state.items()} | {key: (64, 32)}, "it")
    assert "blocks.1.interaction.v2a.v.weight" in report.shapes
    only = replace(report, missing=(), unexpected=())
    with pytest.raises(ValueError) as told:
        only.check()
    shapes = "shape (64, 32) in the checkpoint, (64, 64) in the interaction"
    assert str(told.value) == f"it: blocks.1.interaction.v2a.v.weight has {shapes}"
    assert "of the video and the audio stream and the interaction loaded" in str(report)


def test_ovi_s_published_size_has_a_place_for_each_of_its_keys() -> None:
    """2073 keys of two towers 3072 wide and 30 deep."""
    from ccl.interaction import NoInteraction

    size = {"layers": 30, "head_dim": 128, "text_dim": 4096, "interaction": NoInteraction}
    with torch.device("meta"):
        net = DualStreamTransformer(video=WanStream(3072, 14336, 48), audio=OviAudioStream(3072, 14336, 20), **size)
    shapes = {}
    for key, p in net.named_parameters():
        name = ours_to_wan(key)
        tower = "audio_model." if "audio." in key else "video_model."
        shapes[tower + (f"{name}.modulation" if "blocks" in name and "modulation" in name else name)] = tuple(p.shape)
    fusion = 7 * 2 * 30
    assert len(shapes) + fusion == 2073
    assert len(match(net, shapes, "it").check().loaded) == len(shapes)


# Out again


@pytest.mark.parametrize("kind", ["t2v", "i2v"])
@torch.no_grad()
def test_the_exported_video_stream_computes_the_same_in_diffusers(kind: str, tmp_path: Path) -> None:
    net = awake(ours() if kind == "t2v" else ours_i2v())
    save_diffusers(tmp_path / "out", net.state_dict(), head_dim=32, dtype=torch.float32, shard=200_000)
    assert (tmp_path / "out" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    theirs, info = WanTransformer3DModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    x, text = inputs(length=512)
    image, condition = shown(x)
    t = torch.tensor([0.25, 0.75])
    if kind == "t2v":
        assert relative(theirs(x, 1000 * t, text).sample, alone(net, x, t, text)) < 1e-5
    else:
        got = theirs(torch.cat([x, condition], 1), 1000 * t, text, image.states).sample
        assert relative(got, alone(net, x, t, text, extras={"image": image})) < 1e-5


def test_an_export_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    state, out = ours().state_dict(), tmp_path / "out"
    save_diffusers(out, state, head_dim=32, dtype=torch.float32, shard=200_000)
    (out / "README.md").write_text("mine")
    (out / ".git").mkdir()
    save_diffusers(out, state, head_dim=32, dtype=torch.float32)  # one file in the place of several and their index
    names = [".git", "README.md", "config.json", "diffusion_pytorch_model.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_a_killed_export_is_no_model_and_the_next_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, out = ours().state_dict(), tmp_path / "out"
    save_diffusers(out, state, head_dim=32, dtype=torch.float32)
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target).suffix == ".safetensors":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        save_diffusers(out, state, head_dim=32, dtype=torch.float32)
    assert not (out / "config.json").exists()
    save_diffusers(out, state, head_dim=32, dtype=torch.float32)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize("layout", ["diffusers", "safetensors", "model"])
def test_a_full_disk_leaves_the_old_export_and_names_its_file(layout: str, tmp_path: Path) -> None:
    state, out = ours().state_dict(), tmp_path / ("out.safetensors" if layout == "safetensors" else "out")

    def write() -> None:
        if layout == "diffusers":
            save_diffusers(out, state, head_dim=32, dtype=torch.float32, shard=200_000)
        elif layout == "safetensors":
            save_file_of_wan(out, state, dtype=torch.float32)
        else:
            save_model(out, {}, {f"net.{name}": tensor for name, tensor in state.items()})

    def seen() -> dict[str, bytes]:
        files = [out] if out.is_file() else [path for path in out.iterdir() if not path.name.startswith(".next")]
        return {path.name: path.read_bytes() for path in files}

    write()
    before, limits, handler = seen(), getrlimit(RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        setrlimit(RLIMIT_FSIZE, (100_000, limits[1]))  # from here on a disk that is full is no other
        with pytest.raises(
            FileError, match=rf"^{out}(/\S+\.safetensors)? cannot be written \(.*\); is the disk full\?$"
        ):
            write()
    finally:
        setrlimit(RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert seen() == before


def test_an_export_is_whole_or_absent_and_takes_no_other_s_place(tmp_path: Path) -> None:
    state = ours().state_dict()
    for _ in range(2):  # the second replaces the first
        save_diffusers(tmp_path / "out", state, head_dim=32, dtype=torch.bfloat16)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="mine exists and holds something else"):
        save_diffusers(tmp_path / "mine", state, head_dim=32, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"no name for a file of weights"):
        save_file_of_wan(tmp_path / "out", state, dtype=torch.float32)
    with pytest.raises(ValueError, match="no video stream"):
        save_file_of_wan(tmp_path / "x.safetensors", {"audio.head.head.bias": torch.ones(1)}, dtype=torch.float32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]


@torch.no_grad()
def test_ccl_export_writes_the_video_stream_as_others_read_it(tmp_path: Path, capsys: Any) -> None:
    from ccl.storage.model_folder import build, save_model
    from helpers.tiny import awake as wake
    from helpers.tiny import tiny_config

    model = build(tiny_config(), "tiny")
    wake(model.net)
    state = {f"{part}.{k}": v for part in ("net", "text") for k, v in getattr(model, part).state_dict().items()}
    save_model(tmp_path / "model", tiny_config(), state)
    run = ["export", str(tmp_path / "model"), "--dtype", "float32", "-o"]
    assert cli.main([*run, str(tmp_path / "wan"), "--format", "diffusers"]) == 0
    assert cli.main([*run, str(tmp_path / "wan.safetensors"), "--format", "safetensors"]) == 0
    own = load_file(tmp_path / "wan.safetensors")
    assert torch.equal(own["blocks.1.ffn.0.weight"], model.net.blocks[1].video.ffn[0].weight)
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "wan")
    assert original(theirs).keys() == own.keys()
    again = build(tiny_config(), "tiny").net
    for source in ("wan", "wan.safetensors"):
        load_wan(again, tmp_path / source)
        assert all(torch.equal(p, model.net.state_dict()[n]) for n, p in again.named_parameters() if ".video." in n)
    assert cli.main([*run, str(tmp_path / "wan"), "--format", "safetensors"]) == 1
    assert "no name for a file of weights" in capsys.readouterr().err


# Memory


def test_loading_holds_no_second_copy_of_the_weights(tmp_path: Path) -> None:
    """Anonymous memory while 140 MB are loaded: the network's own, and not a tenth of them besides."""
    megabytes, more = call(loading, tmp_path)
    assert megabytes > 100
    assert more < megabytes / 10


def test_tensors_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of a folder of shards is held when the next one is asked for."""
    import weakref

    alive: dict[str, Any] = {}
    read = Stored.__getitem__

    def counted(self: Stored, name: str) -> Tensor:
        assert not any(ref() is not None for ref in alive.values())
        tensor = read(self, name)
        alive[name] = weakref.ref(tensor)
        return tensor

    path = as_shards_of_wan(wan(), tmp_path)
    monkeypatch.setattr(Stored, "__getitem__", counted)
    load_wan(ours(), path)
    assert len(alive) == len(wan().state_dict())


# What does not fit


def test_a_checkpoint_that_does_not_fit_is_refused_by_name() -> None:
    state, net = wan().state_dict(), ours()
    with pytest.raises(ValueError, match=r"lacks 1 keys, the first is head\.head\.bias"):
        load_stream(net, {k: v for k, v in state.items() if k != "proj_out.bias"})
    with pytest.raises(ValueError, match=r"1 keys too many, the first is head\.spare"):
        load_stream(net, state | {"head.spare": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"text_embedding\.0\.weight has shape \(1, 1\) in the checkpoint"):
        load_stream(net, state | {"condition_embedder.text_embedder.linear_1.weight": torch.zeros(1, 1)})


def test_an_embedding_without_channels_is_a_sentence(tmp_path: Path) -> None:
    state = load_file(as_file(wan(), tmp_path)) | {"patch_embedding.weight": torch.zeros(64)}
    save_file(state, tmp_path / "flat.safetensors")
    said = refused(ours(), tmp_path / "flat.safetensors")
    assert "patch_embedding.weight has shape (64,) in the checkpoint" in said


def test_the_weights_of_another_size_are_named_as_what_they_are() -> None:
    def meta(width: int, ffn: int, layers: int) -> Any:
        from ccl.interaction import NoInteraction

        with torch.device("meta"):
            return ours(
                video=WanStream(width, ffn, 16), head_dim=128, layers=layers, interaction=NoInteraction,
                audio=WanStream(128, 32, 4),
            )  # fmt: skip

    small, large = meta(1536, 8960, 30), meta(5120, 13824, 40)
    shapes = {ours_to_wan(k): tuple(p.shape) for k, p in large.named_parameters() if "audio." not in k}
    with pytest.raises(ValueError) as told:
        match(small, shapes, "wan.safetensors").check()
    assert str(told.value) == (
        "wan.safetensors is another backbone (Wan2.1-T2V-14B: 5120 wide, 40 blocks, 16 channels in) than the model's "
        "video stream (Wan2.1-T2V-1.3B: 1536 wide, 30 blocks, 16 channels in)"
    )


def test_an_image_backbone_is_no_text_backbone(tmp_path: Path) -> None:
    said = refused(ours(), as_file(wan_i2v(), tmp_path))
    assert "64 wide, 2 blocks, 36 channels in" in said and "64 wide, 2 blocks, 16 channels in" in said


def test_a_deeper_backbone_is_refused(tmp_path: Path) -> None:
    assert "keys too many, the first is blocks.1." in refused(ours(layers=1), as_file(wan(), tmp_path))
    assert "lacks 27 keys, the first is blocks.2." in refused(ours(layers=3), tmp_path)


def test_weights_of_something_else_are_no_backbone(tmp_path: Path) -> None:
    save_file({"encoder.conv1.weight": torch.ones(2)}, tmp_path / "vae.safetensors")
    assert "holds no weights of a Wan backbone; its first key is encoder.conv1.weight" in refused(
        ours(), tmp_path / "vae.safetensors"
    )


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    for write in (as_file, as_pth):
        path = write(wan(), tmp_path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert path.name in refused(ours(), path)
    (tmp_path / "text.safetensors").write_text("not found")
    assert "text.safetensors cannot be read as weights" in refused(ours(), tmp_path / "text.safetensors")


class Trap:
    def __reduce__(self) -> Any:
        return (Path("sprung").write_text, ("x",))


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_would_run_code_is_refused_unrun(old: bool, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    held = {"patch_embedding.weight": Trap()}
    if old:
        (tmp_path / "wan.pth").write_bytes(pickle.dumps(held))
    else:
        torch.save(held, tmp_path / "wan.pth")
    assert "wan.pth cannot be read as weights (it holds more than tensors" in refused(ours(), tmp_path / "wan.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_folder_that_is_not_whole_is_told(tmp_path: Path) -> None:
    folder = as_shards_of_wan(wan(), tmp_path)
    (folder / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    assert "lacks diffusion_pytorch_model-00002-of-00003.safetensors" in refused(ours(), folder)
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret"}}')
    assert "'../../secret', which is not a plain file name" in refused(ours(), folder)
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{")
    assert "index.json cannot be read as JSON" in refused(ours(), folder)


def test_a_folder_with_nothing_or_with_everything_twice_is_told(tmp_path: Path) -> None:
    assert "holds no .safetensors weights" in refused(ours(), tmp_path)
    assert "there is no file or folder" in refused(ours(), tmp_path / "nowhere")
    for name in ("one", "two"):
        save_file(original(wan()), tmp_path / f"{name}.safetensors")
    assert "more than one network, one.safetensors and two.safetensors" in refused(ours(), tmp_path)


def test_a_repository_that_is_not_here_names_the_command_that_fetches_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path / "ccl"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    said = refused(ours(), "Wan-AI/Wan2.1-T2V-14B-Diffusers")
    assert "ccl weights fetch wan2.1-t2v-14b" in said
    as_pipeline(wan(), tmp_path / "ccl" / "wan2.1-t2v-14b")
    for name in ("Wan-AI/Wan2.1-T2V-14B-Diffusers", "wan2.1-t2v-14b"):
        assert load_wan(ours(), name).missing == ()
    assert "ccl weights fetch wan2.2-ti2v-5b" in refused(ours(), "wan2.2-ti2v-5b")


def test_a_report_with_nothing_wrong_is_itself() -> None:
    report = LoadReport("x", ("video",), ("video.head.head.bias",))
    assert report.check() is report and str(report) == "x: 1 tensors of the video stream loaded"


# Where training starts


def test_training_may_start_from_a_backbone_alone_or_from_one_for_each_stream(tmp_path: Path, capsys: Any) -> None:
    from helpers.fakes import make_module

    source, stage1, fresh = (make_module(seed=seed) for seed in (7, 8, 0))
    for module in (source, stage1, fresh):
        module.configure_model()
    save_file_of_wan(tmp_path / "wan.safetensors", source.net.state_dict(), dtype=torch.float32)
    (tmp_path / "stage1").mkdir()
    save_file(stage1.state_dict(), tmp_path / "stage1" / "model.safetensors")

    started = make_module(pretrained=str(tmp_path / "wan.safetensors"))
    started.configure_model()
    for name, p in started.named_parameters():
        from_file = ".video." in name and "interaction" not in name
        assert torch.equal(p, dict((source if from_file else fresh).named_parameters())[name]), name
    assert "tensors of the video stream loaded" in capsys.readouterr().out

    started = make_module(pretrained={"video": str(tmp_path / "wan.safetensors"), "audio": str(tmp_path / "stage1")})
    started.configure_model()
    for name, p in started.named_parameters():
        stream = name.startswith("net.") and "interaction" not in name
        origin = source if stream and ".video." in name else fresh if "interaction" in name else stage1
        assert torch.equal(p, dict(origin.named_parameters())[name]), name


def test_a_sharded_network_is_filled_shard_by_shard(tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    from ccl.training.fsdp import shard
    from ccl.weights.fill import spread

    theirs, net = wan(), ours()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        shard(net, init_device_mesh("cpu", (1,)), bf16=False)
        load_wan(net, as_file(theirs, tmp_path), place=lambda p, whole: p.copy_(spread(whole, p)))
        loaded = {name: p.full_tensor() for name, p in net.named_parameters()}
    finally:
        dist.destroy_process_group()
    for key, value in original(theirs).items():
        assert torch.equal(loaded[wan_to_ours(key)], value), key


@torch.no_grad()
def test_sampling_asks_for_the_picture_that_a_backbone_needs() -> None:
    from ccl.guidance import UCG2, guided
    from ccl.types import AV, CLOSED

    net, (x, text) = ours_i2v(), inputs()
    velocity = guided(net, UCG2(), CLOSED, {"positive": text, "negative": text}, grid=GRID)
    with pytest.raises(ValueError, match="always shown a first picture"):
        velocity(AV(x, None), AV(torch.ones(len(x)), None), 1.0)


def test_a_stream_that_there_is_not_has_no_weights_to_start_from() -> None:
    from helpers.fakes import make_module

    # The module's own sentence, or that of the types, which are checked first in tests.
    with pytest.raises((ValueError, TypeError), match=r"model\.pretrained has vidoe|pretrained={'vidoe': 'x'}"):
        make_module(pretrained={"vidoe": "x"})


@pytest.mark.parametrize(
    ("stream", "name", "more"),
    [
        ("video", "WanImageStream", {"image_dim": 1280, "image_tokens": 257}),
        ("audio", "OviAudioStream", {"kernel": 7, "hidden": None}),
    ],
)
def test_a_config_swaps_one_kind_of_stream_for_another(
    stream: str, name: str, more: dict[str, Any], tmp_path: Path
) -> None:
    import yaml

    from ccl.cli.fit import resolve

    size = {"width": 192, "ffn": 768, "channels": 16}
    node = {"class_path": f"ccl.model.{name}", "init_args": {**size, **more}}
    overlay = {"model": {"net": {"init_args": {"rescale": 0.19676, stream: node}}}}
    (tmp_path / "kind.yaml").write_text(yaml.safe_dump(overlay))
    joint = ROOT / "configs" / "joint.yaml"
    net = resolve(["--config", str(joint), "--config", str(tmp_path / "kind.yaml")])["model"]["net"]
    there = net["init_args"][stream]
    assert there["class_path"].endswith(name) and there["init_args"].items() >= (size | more).items()
    assert net["init_args"]["rescale"] == 0.19676
