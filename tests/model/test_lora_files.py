"""LoRA files: every trainer's names, scales, several at once, off again, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from ccl import cli
from ccl.model import DualStreamTransformer
from ccl.model.adapter import LoRA, adapted, is_adapter, merge, shapes_without
from ccl.model.keys import belongs, ours_to_wan, part_of, wan_to_diffusers
from ccl.model.lora import LoRAFile, Loras, baked
from ccl.model.read_lora import read_lora
from ccl.model.save_lora import save_comfyui, save_peft
from ccl.storage.model_folder import build, export, load_model, save_model
from helpers.fakes import make_module, make_net
from helpers.tiny import awake, run_folder, tiny_config, tiny_pipeline, tiny_state
from model.test_lora import LORA, forward

MODULES = [f"{part}.{name}" for part in ("self_attn", "cross_attn") for name in "qkvo"] + ["ffn.0", "ffn.2"]


def trained(seed: int = 0, lora: LoRA = LORA) -> Any:
    """A network with adapters that add something."""
    net = lora.adapt(make_net())
    awake(net, seed)
    return net


def base_of(net: Any) -> DualStreamTransformer:
    """The same without adapters."""
    base = make_net()
    base.load_state_dict({name: p for name, p in net.state_dict().items() if not is_adapter(name)})
    return base.requires_grad_(False)


def read(path: Path, net: Any) -> LoRAFile:
    return read_lora(path, shapes_without(net))


def alone(net: Any) -> dict[str, Tensor]:
    return {name: p for name, p in net.state_dict().items() if part_of(name) == "interaction"}


def peft_folder(folder: Path, net: Any, lora: LoRA = LORA, whole: Mapping[str, Tensor] | None = None) -> Path:
    save_peft(folder, net.state_dict(), lora, whole=whole or {}, base=None, dtype=torch.float32)
    return folder


def products(net: Any, of: str = "") -> dict[str, tuple[Tensor, Tensor]]:
    state = net.state_dict()
    layers = [layer for layer in adapted(state) if not of or belongs(layer, of)]
    return {f"{layer}.weight": (state[f"{layer}.lora_a"], state[f"{layer}.lora_b"]) for layer in layers}


def same(found: LoRAFile, wanted: Mapping[str, tuple[Tensor, Tensor]], scale: float) -> None:
    assert found.low.keys() == wanted.keys()
    for name, (down, up) in wanted.items():
        assert torch.equal(found.low[name].down, down) and torch.equal(found.low[name].up, up), name
        assert found.low[name].scale == scale


def by_wan(rank: int = 3, blocks: int = 2, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Adapters of a whole video stream of make_net, by Wan2.1's names of their modules."""
    g = torch.Generator().manual_seed(seed)
    shapes = {ours_to_wan(n): p.shape for n, p in make_net().named_parameters() if belongs(n, "video")}
    names = [f"blocks.{i}.{module}" for i in range(blocks) for module in MODULES]
    return {
        name: (
            torch.randn(rank, shapes[f"{name}.weight"][1], generator=g),
            torch.randn(shapes[f"{name}.weight"][0], rank, generator=g),
        )
        for name in names
    }


def comfy(name: str) -> tuple[str, str, str]:
    return tuple(f"diffusion_model.{name}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha"))  # type: ignore[return-value]


def comfy_ab(name: str) -> tuple[str, str, str]:
    return tuple(f"diffusion_model.{name}.{end}" for end in ("lora_A.weight", "lora_B.weight", "alpha"))  # type: ignore[return-value]


def musubi(name: str) -> tuple[str, str, str]:
    flat = f"lora_unet_{name.replace('.', '_')}"
    return f"{flat}.lora_down.weight", f"{flat}.lora_up.weight", f"{flat}.alpha"


def diffusers(name: str) -> tuple[str, str, str]:
    theirs = f"transformer.{wan_to_diffusers(name)}"
    return f"{theirs}.lora_A.weight", f"{theirs}.lora_B.weight", f"{theirs}.alpha"


def synth(name: str) -> tuple[str, str, str]:
    return f"{name}.lora_A.default.weight", f"{name}.lora_B.default.weight", f"{name}.alpha"


LAYOUTS: dict[str, Callable[[str], tuple[str, str, str]]] = {
    "comfyui": comfy,
    "comfyui, lora_A": comfy_ab,
    "musubi-tuner": musubi,
    "diffusers": diffusers,
    "DiffSynth": synth,
}


def written(path: Path, layout: str, *, alpha: float | None = 6.0, dtype: torch.dtype = torch.float32) -> Path:
    tensors = {}
    for name, (down, up) in by_wan().items():
        a, b, scale = LAYOUTS[layout](name)
        tensors |= {a: down.to(dtype), b: up.to(dtype)}
        if alpha is not None:
            tensors[scale] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("alpha", [6.0, None], ids=["alpha", "no alpha"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_trainers_names_are_the_same_lora_of_the_video_stream(layout: str, alpha: Any, tmp_path: Path) -> None:
    net = make_net()
    found = read(written(tmp_path / "a.safetensors", layout, alpha=alpha), net)
    wanted = {f"blocks.{n.split('.')[1]}.video.{n.split('.', 2)[2]}.weight": pair for n, pair in by_wan().items()}
    same(found, wanted, 1.0 if alpha is None else alpha / 3)
    assert not found.notes and not found.added and not found.whole


@pytest.mark.parametrize("layout", ["comfyui", "comfyui, lora_A", "musubi-tuner"])
def test_what_is_loaded_is_what_diffusers_makes_of_the_file(layout: str, tmp_path: Path) -> None:
    """Its own converter folds alpha / r into A; the products agree to float32's rounding."""
    utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    file = written(tmp_path / "a.safetensors", layout)
    convert = "musubi" if layout == "musubi-tuner" else "non_diffusers"
    theirs = getattr(utils, f"_convert_{convert}_wan_lora_to_diffusers")(load_file(file))
    found = read(file, make_net())
    assert len(theirs) == 2 * len(found.low)
    for name, low in found.low.items():
        module = f"transformer.{wan_to_diffusers(ours_to_wan(name).removesuffix('.weight'))}"
        product = theirs[f"{module}.lora_B.weight"] @ theirs[f"{module}.lora_A.weight"]
        torch.testing.assert_close(low.delta, product, rtol=1e-5, atol=1e-5)


def test_bfloat16_files_are_read_as_they_are(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.safetensors", "comfyui", dtype=torch.bfloat16), make_net())
    low = found.low["blocks.0.video.ffn.0.weight"]
    assert low.down.dtype == torch.bfloat16 and low.delta.dtype == torch.float32


def test_what_is_saved_for_peft_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    net = trained()
    found = read(peft_folder(tmp_path / "a", net, whole=alone(net)), net)
    same(found, products(net), LORA.scale)
    assert found.whole.keys() == alone(net).keys() and found.whole
    assert all(torch.equal(tensor, alone(net)[name]) for name, tensor in found.whole.items())


def test_what_is_saved_for_comfyui_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    net, file = trained(), tmp_path / "a.safetensors"
    save_comfyui(file, net.state_dict(), LORA, dtype=torch.float32)
    same(read(file, net), products(net, "video"), LORA.scale)
    assert "diffusion_model.blocks.0.self_attn.q.lora_down.weight" in load_file(file)


def test_peft_computes_the_same_with_the_same_file(tmp_path: Path) -> None:
    """PEFT's own loader on the same base; the outputs of the whole network agree to 1e-6."""
    peft = pytest.importorskip("peft")
    net, other = trained(), trained(5)
    folder = peft_folder(tmp_path / "a", net, whole=alone(net))
    base = base_of(net)
    base.load_state_dict(alone(other), strict=False)  # so that what trained whole must come from the file
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder).base_model.model
    loras = Loras(base)
    loras.put([(read(folder, base), 1.0)])
    for a, b, c in zip(forward(base), forward(theirs), forward(net), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(a, c, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{"use_rslora": True}, {"alpha_pattern": {"video.ffn.0": 5, "q": 1.5}}], ids=str)
def test_pefts_ways_of_scaling_are_kept(settings: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = base_of(trained())
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q", "ffn.0"], **settings)
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    awake(theirs, 3)
    base.load_state_dict({n.replace("base_layer.", ""): p for n, p in theirs.base_model.model.state_dict().items()
                          if "lora_" not in n})  # fmt: skip
    theirs.save_pretrained(tmp_path / "a")
    Loras(base).put([(read(tmp_path / "a", base), 1.0)])
    for a, b in zip(forward(base), forward(theirs.base_model.model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_diffusers_own_metadata_say_how_a_file_is_scaled(tmp_path: Path) -> None:
    file = written(tmp_path / "a.safetensors", "diffusers", alpha=None)
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.r": 3, "transformer.lora_alpha": 12})}
    save_file(load_file(file), file, metadata=metadata)
    assert {low.scale for low in read(file, make_net()).low.values()} == {4.0}


# On a network


def test_several_add_up_and_a_scale_scales(tmp_path: Path) -> None:
    a, b = trained(), trained(7, LoRA(rank=5, alpha=2.0))
    base = base_of(a)
    files = [
        (read(peft_folder(tmp_path / "a", a), base), 0.5),
        (read(peft_folder(tmp_path / "b", b, LoRA(rank=5, alpha=2.0)), base), -2.0),
    ]
    wanted = make_net()
    state = base.state_dict()
    for file, scale in files:
        state |= {name: state[name] + scale * low.scale * low.up @ low.down for name, low in file.low.items()}
    wanted.load_state_dict(state)
    together = make_net()
    together.load_state_dict(baked(base.state_dict(), files))
    Loras(base).put(files)
    for x, y, z in zip(forward(base), forward(wanted), forward(together), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(z, y, rtol=1e-5, atol=1e-5)


def test_none_of_it_is_nothing_and_off_is_the_base_to_the_last_bit(tmp_path: Path) -> None:
    net = trained()
    base = base_of(net)
    base.load_state_dict(alone(trained(5)), strict=False)
    before, was = copy.deepcopy(base.state_dict()), forward(base)
    found, loras = read(peft_folder(tmp_path / "a", net, whole=alone(net)), base), Loras(base)
    loras.put([(found, 0.0)])
    for a, b in zip(forward(base), was, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    loras.put([(found, 1.0), (found, 0.3)])
    assert not torch.allclose(forward(base).video, was.video)
    loras.put([])
    assert base.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(forward(base), was, strict=True))


def test_baked_is_what_a_runs_export_merges(tmp_path: Path) -> None:
    net = trained()
    state = net.state_dict()
    found = read(peft_folder(tmp_path / "a", net, whole=alone(net)), net)
    base = {name: p for name, p in state.items() if not is_adapter(name)}
    ours, merged = baked(base, [(found, 1.0)]), merge(state, LORA.scale)
    assert ours.keys() == merged.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], merged[name], rtol=1e-6, atol=1e-6)


def test_differences_of_biases_norms_modulation_and_patches_are_added(tmp_path: Path) -> None:
    """lightx2v's distilled files have them beside their adapters; a convolution's adapter is one of its kernel."""
    net = base_of(trained())
    own = copy.deepcopy(net.state_dict())
    g = torch.Generator().manual_seed(1)
    changes = {
        "blocks.0.self_attn.q.diff_b": "blocks.0.video.self_attn.q.bias",
        "blocks.1.self_attn.norm_k.diff": "blocks.1.video.self_attn.norm_k.weight",
        "blocks.1.norm3.diff_b": "blocks.1.video.norm3.bias",
        "blocks.0.diff_m": "blocks.0.video.modulation",
        "head.diff_m": "video.head.modulation",
        "head.head.diff": "video.head.head.weight",
        "time_projection.1.diff_b": "video.time_projection.1.bias",
    }
    tensors = {f"diffusion_model.{k}": torch.randn(own[name].shape, generator=g) for k, name in changes.items()}
    patch = own["video.patch_embedding.weight"]
    down, up = torch.randn(2, *patch.shape[1:], generator=g), torch.randn(len(patch), 2, 1, 1, 1, generator=g)
    tensors["diffusion_model.patch_embedding.lora_down.weight"] = down
    tensors["diffusion_model.patch_embedding.lora_up.weight"] = up
    save_file(tensors, tmp_path / "a.safetensors")
    Loras(net).put([(read(tmp_path / "a.safetensors", net), 0.5)])
    now = net.state_dict()
    for key, name in changes.items():
        torch.testing.assert_close(now[name] - own[name], 0.5 * tensors[f"diffusion_model.{key}"])
    kernel = torch.einsum("or,rcthw->octhw", up.flatten(1), down)
    torch.testing.assert_close(now["video.patch_embedding.weight"] - own["video.patch_embedding.weight"], 0.5 * kernel)
    others = [name for name in own if not torch.equal(own[name], now[name])]
    assert {*others} == {*changes.values(), "video.patch_embedding.weight"}


# What is refused, or told


def refused(path: Path, tensors: dict[str, Tensor], match: str, net: Any = None) -> None:
    save_file(tensors, path)
    with pytest.raises(ValueError, match=match) as told:
        read(path, net or make_net())
    assert str(path.name) in str(told.value)


def pair(module: str, out: int = 16, into: int = 16) -> dict[str, Tensor]:
    return {f"{module}.lora_down.weight": torch.ones(2, into), f"{module}.lora_up.weight": torch.ones(out, 2)}


Q, FIRST = "diffusion_model.blocks.0.self_attn.q", "lora_unet_blocks_0_self_attn_q"
REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "another size": (pair(Q, 32, 32), r"another network: diffusion_model.* \(32, 32\).*\(16, 16\)"),
    "more blocks": (pair("diffusion_model.blocks.7.ffn.0"), r"2 keys that have no place .*which has 2 blocks; "),
    "a text encoder's": (pair("lora_te1_text_model_0_q"), r"no place .*lora_te1_text"),
    "half a pair": ({f"{Q}.lora_down.weight": torch.ones(2, 16)}, r"without what goes behind"),
    "the other half": ({f"{Q}.lora_up.weight": torch.ones(16, 2)}, r"without what goes before"),
    "two ranks": (pair(Q) | {f"{Q}.lora_up.weight": torch.ones(16, 3)}, r"of rank 2, and .* of rank 3"),
    "twice": (pair(Q) | pair(FIRST), r"changes blocks\.0\.self_attn\.q\.weight twice"),
    "a DoRA": (pair(Q) | {f"{Q}.dora_scale": torch.ones(16, 1)}, "DoRA"),
    "a LoKr": ({f"{FIRST}.lokr_w1": torch.ones(2, 2)}, "LyCORIS"),
    "a reshaping": (pair(Q) | {f"{Q}.reshape_weight": torch.ones(2)}, "another shape"),
    "not finite": (pair(Q) | {f"{Q}.lora_up.weight": torch.full((16, 2), torch.nan)}, "NaN"),
    "a network": ({"blocks.0.self_attn.q.weight": torch.ones(16, 16)}, "holds no LoRA"),
    "an alpha of many": (pair(Q) | {f"{Q}.alpha": torch.ones(2)}, "must be one number"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_told_with_file_and_key(kind: str, tmp_path: Path) -> None:
    refused(tmp_path / "a.safetensors", *REFUSED[kind])


@pytest.mark.parametrize("layout", ["comfyui", "musubi-tuner"])
def test_keys_of_a_network_that_is_shown_a_picture_are_told_and_the_others_taken(layout: str, tmp_path: Path) -> None:
    a, b, alpha = LAYOUTS[layout]("blocks.1.cross_attn.k_img")
    q, o, _ = LAYOUTS[layout]("blocks.1.cross_attn.k")
    pairs = {a: torch.ones(2, 16), b: torch.ones(16, 2), alpha: torch.tensor(2.0)}
    save_file({**pairs, q: torch.ones(2, 16), o: torch.ones(16, 2)}, tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors", make_net())
    assert found.low.keys() == {"blocks.1.video.cross_attn.k.weight"}
    (note,) = found.notes
    assert "a.safetensors" in note and "3 of its keys" in note and "k_img" in note


def test_a_file_that_could_hold_code_and_a_folder_of_two_are_refused(tmp_path: Path) -> None:
    torch.save(pair(Q), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt is no \.safetensors file"):
        read(tmp_path / "a.pt", make_net())
    for name in ("a", "b"):
        save_file(pair(Q), tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="2 files"):
        read(tmp_path, make_net())
    (tmp_path / "c").mkdir()
    save_file(pair(Q), tmp_path / "c" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="no adapter_config"):
        read(tmp_path / "c", make_net())


# Training


def test_training_goes_on_from_a_file(tmp_path: Path) -> None:
    net = trained()
    folder = peft_folder(tmp_path / "a", net, whole=alone(net))
    module = make_module(lora=LoRA(rank=2, alpha=8.0, start=str(folder)))  # another alpha: the product is the same
    again, _ = module.built
    assert all(torch.equal(p, again.state_dict()[name]) for name, p in alone(net).items())
    state = again.state_dict()
    for name, (down, up) in products(net).items():
        layer = name.removesuffix("weight")
        product = 8.0 / 2 * state[f"{layer}lora_b"] @ state[f"{layer}lora_a"]
        torch.testing.assert_close(product, LORA.scale * up @ down)
    for lora, match in (
        (LoRA(rank=3, start=str(folder)), r"model\.lora\.start: .* of rank 2 at .*model\.lora\.rank 3"),
        (LoRA(rank=2, parts=("ffn",), start=str(folder)), r"does not train here; put it into the base"),
    ):
        with pytest.raises(ValueError, match=match):
            make_module(lora=lora).configure_model()


def test_adapters_alone_train_where_all_else_is_frozen() -> None:
    module = make_module(lora=LORA, freeze="all")
    learns = [name for part in module.built for name, p in part.named_parameters() if p.requires_grad]
    assert learns and all(map(is_adapter, learns))
    with pytest.raises(ValueError, match="nothing trains"):
        make_module(freeze="all")


# By command


def lora_run(tmp_path: Path, **model: Any) -> Path:
    """A run of the tiny model with adapters, as `ccl fit` leaves it."""
    net = build(tiny_config(), "tiny").net
    LORA.adapt(net)
    awake(net)
    text = {k: v for k, v in tiny_state().items() if k.startswith("text.")}
    ckpt = run_folder(tmp_path, {**{f"net.{k}": v for k, v in net.state_dict().items()}, **text})
    file = ckpt.parents[1] / "config.yaml"
    run = yaml.safe_load(file.read_text())
    run["model"] |= {"lora": {"rank": LORA.rank, "alpha": LORA.alpha, "parts": list(LORA.parts)}, **model}
    file.write_text(yaml.safe_dump(run))
    return ckpt.parents[1]


def test_a_runs_lora_on_its_base_is_the_run(tmp_path: Path, capsys: Any) -> None:
    run, base = lora_run(tmp_path), tmp_path / "base"
    merged = load_model(run).net.state_dict()
    model = build(tiny_config(), "tiny")
    awake(model.net)
    LORA.adapt(model.net)
    awake(model.net)  # the same draws as the run's
    net = {k: v for k, v in model.net.state_dict().items() if not is_adapter(k)}
    save_model(base, tiny_config(), {**tiny_state(), **{f"net.{k}": v for k, v in net.items()}})
    exact = ["--dtype", "float32"]
    assert cli.main(["export", str(run), "-o", str(tmp_path / "voice"), "--format", "peft", *exact]) == 0
    assert cli.main(["export", str(base), "-o", str(tmp_path / "both"), "--lora", str(tmp_path / "voice"), *exact]) == 0
    for name, tensor in load_model(tmp_path / "both").net.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-6, atol=1e-6)
    assert load_model(tmp_path / "both").provenance["loras"][0]["scale"] == 1.0
    capsys.readouterr()
    out = tmp_path / "voice.safetensors"
    assert cli.main(["export", str(run), "-o", str(out), "--format", "comfyui", *exact]) == 0
    assert "adapters of the sound and" in capsys.readouterr().err
    again = read_lora(out, {k: tuple(v.shape) for k, v in net.items()})
    assert all(belongs(name, "video") for name in again.names)


def test_a_run_that_trained_adapters_alone_writes_them_alone(tmp_path: Path) -> None:
    run = lora_run(tmp_path, freeze="all")
    assert cli.main(["export", str(run), "-o", str(tmp_path / "voice"), "--format", "peft"]) == 0
    tensors = load_file(tmp_path / "voice" / "adapter_model.safetensors")
    assert all(".lora_" in name for name in tensors)
    assert next(iter(tensors.values())).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--lora", "no.safetensors"], "there is no file or folder no.safetensors, given as a LoRA"),
        (["--lora", "a.safetensors=nan"], "its scale must be a number"),
        (["--lora", "a=1", "--format", "peft"], "writes the run's own adapters alone"),
        (["--format", "comfyui"], "has no adapters"),
    ],
)
def test_what_cannot_be_exported_is_told(more: list[str], said: str, tmp_path: Path, capsys: Any) -> None:
    save_model(tmp_path / "base", tiny_config(), tiny_state())
    assert cli.main(["export", str(tmp_path / "base"), "-o", str(tmp_path / "x.safetensors"), *more]) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_clips_say_which_loras_made_them_and_none_is_what_it_was(tmp_path: Path) -> None:
    from ccl.generation.generate import describe

    pipe = tiny_pipeline()
    before = pipe("a bell")
    net = LORA.adapt(copy.deepcopy(pipe.net))
    awake(net, 4)
    save_comfyui(tmp_path / "a.safetensors", net.state_dict(), LORA, dtype=torch.float32)
    pipe.load_lora(tmp_path / "a.safetensors", 0.5)
    (record,) = describe(pipe)["loras"]
    assert record["file"] == "a.safetensors" and record["scale"] == 0.5
    assert (pipe("a bell").video != before.video).any()
    with pytest.raises(ValueError, match="scale is nan"):
        pipe.load_lora(tmp_path / "a.safetensors", float("nan"))
    pipe.unload_lora()
    assert describe(pipe)["loras"] == [] and (pipe("a bell").video == before.video).all()


def test_blocks_that_wait_on_the_cpu_have_the_loras_that_came_later(tmp_path: Path) -> None:
    pipe, other = tiny_pipeline(), tiny_pipeline()
    net = LORA.adapt(copy.deepcopy(pipe.net))
    awake(net, 4)
    save_comfyui(tmp_path / "a.safetensors", net.state_dict(), LORA, dtype=torch.float32)
    pipe.offload = "blocks"
    first = pipe("a bell").video
    for one in (pipe, other):
        one.load_lora(tmp_path / "a.safetensors")
    assert (pipe("a bell").video == other("a bell").video).all()
    pipe.unload_lora()
    assert (pipe("a bell").video == first).all() and (first != other("a bell").video).any()


def test_a_baked_model_is_written_in_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    save_model(tmp_path / "base", tiny_config(), tiny_state())
    net = LORA.adapt(build(tiny_config(), "tiny").net)
    awake(net, 4)
    save_comfyui(tmp_path / "a.safetensors", net.state_dict(), LORA, dtype=torch.float32)
    export(tmp_path / "base", tmp_path / "out", loras=[(tmp_path / "a.safetensors", 1.0)])
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
