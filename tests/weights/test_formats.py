"""Weights as people publish them: two networks in one folder, wrapped names, quantised numbers, adapters, NaN."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ccl.model.load import load_stream, load_wan
from ccl.model.stored import Stored, files
from ccl.weights import catalogue as weights
from ccl.weights.fill import fill
from ccl.weights.formats import check_finite
from ccl.weights.read import tensors, weight_files
from helpers.wan_streams import as_shards_of_wan, original, ours, refused, wan

ONE = "diffusion_pytorch_model.safetensors"


def put(folder: Path, name: str = ONE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"blocks.0.ffn.0.weight": torch.zeros(2, 2)}, folder / name)
    return folder / name


def told(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        files(path)
    assert "\n" not in str(error.value)
    return str(error.value)


# Two networks in one place --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [("transformer", "transformer_2"), ("high_noise_model", "low_noise_model")])
def test_two_networks_in_a_folder_are_named_and_none_is_taken(pair: tuple[str, str], tmp_path: Path) -> None:
    own = {name: put(tmp_path / name) for name in pair}
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"")  # lies beside them in the original release
    said = told(tmp_path)
    assert f"{pair[0]} and {pair[1]}" in said and str(tmp_path / pair[0]) in said
    for name in pair:
        assert files(tmp_path / name) == [own[name]]


def test_half_of_a_pair_is_not_the_whole(tmp_path: Path) -> None:
    put(tmp_path / "a" / "low_noise_model")
    assert "high_noise_model and low_noise_model" in told(tmp_path / "a")
    # A pipeline of which one part alone was fetched, and one that could have a second part and has none.
    put(tmp_path / "b" / "transformer")
    index = tmp_path / "b" / "model_index.json"
    index.write_text(json.dumps({"transformer": ["diffusers", "x"], "transformer_2": ["diffusers", "x"]}))
    assert "transformer and transformer_2" in told(tmp_path / "b")
    index.write_text(json.dumps({"transformer": ["diffusers", "x"], "transformer_2": [None, None]}))
    assert files(tmp_path / "b") == [tmp_path / "b" / "transformer" / ONE]


def test_two_files_of_different_networks_are_named(tmp_path: Path) -> None:
    for name in ("wan2.2_high.safetensors", "wan2.2_low.safetensors"):
        put(tmp_path, name)
    assert "wan2.2_high.safetensors and wan2.2_low.safetensors" in told(tmp_path)
    assert files(tmp_path / "wan2.2_low.safetensors") == [tmp_path / "wan2.2_low.safetensors"]


def test_an_index_and_a_whole_file_are_two_and_either_can_be_named(tmp_path: Path) -> None:
    model = wan()
    folder = as_shards_of_wan(model, tmp_path)
    index = folder / f"{ONE}.index.json"
    shards = sorted(folder.glob("*-of-*.safetensors"))
    assert files(folder) == files(index) == shards
    save_file(original(model), folder / ONE)
    assert ONE in told(folder) and index.name in told(folder)
    assert files(index) == shards and files(folder / ONE) == [folder / ONE]
    with pytest.raises(ValueError, match="only one of them is meant"):  # the same of a codec's or text encoder's folder
        weight_files(folder)


def test_numbered_files_are_one_network_without_their_index(tmp_path: Path) -> None:
    state, names = original(wan()), [f"wan-0000{i}-of-00002.safetensors" for i in (1, 2)]
    half = len(state) // 2
    for name, keys in zip(names, (list(state)[:half], list(state)[half:]), strict=True):
        save_file({key: state[key] for key in keys}, tmp_path / name)
    assert files(tmp_path) == files(tmp_path / names[1]) == [tmp_path / name for name in names]
    (tmp_path / names[0]).unlink()
    assert f"lacks {names[0]}" in told(tmp_path)


def test_a_folder_above_names_those_that_hold_weights(tmp_path: Path) -> None:
    put(tmp_path / "diffusion_models")
    assert f"name {tmp_path / 'diffusion_models'}" in told(tmp_path)


# Names ----------------------------------------------------------------------------------------------------------------


def compiled(name: str) -> str:
    """As the names of a network whose every block was compiled, within FSDP."""
    head, dot, rest = name.partition(".self_attn.")
    return f"_fsdp_wrapped_module.{head}{'._orig_mod.self_attn.' if dot else ''}{rest}"


WRAPPINGS: dict[str, Callable[[str], str]] = {
    "diffusion_model.": "diffusion_model.{}".format,
    "model.diffusion_model.": "model.diffusion_model.{}".format,
    "model.": "model.{}".format,
    "module.": "module.{}".format,
    "_orig_mod.": "_orig_mod.{}".format,
    "module._orig_mod.": "module._orig_mod.{}".format,
    "generator.model.": "generator.model.{}".format,  # of distilled releases
    "compiled blocks": compiled,
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("layout", [original, nn.Module.state_dict])
def test_what_all_names_begin_with_is_taken_off(wrapping: str, layout: Callable[[Any], dict[str, Tensor]]) -> None:
    model, bare, net = wan(), ours(), ours()
    state = layout(model)
    load_stream(bare, state)
    load_stream(net, {WRAPPINGS[wrapping](key): value for key, value in state.items()})
    own = dict(bare.named_parameters())
    assert [name for name, p in net.named_parameters() if "video." in name and not torch.equal(p, own[name])] == []


def test_names_that_only_some_carry_stay() -> None:
    state = {f"model.{k}" if k.startswith("head") else k: v for k, v in original(wan()).items()}
    with pytest.raises(ValueError, match=r"lacks 3 keys, the first is head\.modulation"):
        load_stream(ours(), state)


def test_a_parameter_under_two_names_is_refused() -> None:
    state = wan().state_dict()
    with pytest.raises(ValueError, match=r"head\.head\.bias twice, as proj_out\.bias and as head\.head\.bias"):
        load_stream(ours(), {**state, "head.head.bias": state["proj_out.bias"] + 1})


# Formats --------------------------------------------------------------------------------------------------------------

MARKS = {
    "LoRA": "blocks.0.self_attn.q.lora_A.weight",
    "a LoRA": "lora_unet_blocks_0_self_attn_q.lora_down.weight",
    "quantised to fp8": "blocks.0.self_attn.q.scale_weight",
    "fp8": "scaled_fp8",
    "bitsandbytes": "blocks.0.self_attn.q.weight.absmax",
    "GPTQ": "blocks.0.self_attn.q.qweight",
}


@pytest.mark.parametrize("kind", MARKS)
def test_adapters_and_quantised_networks_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    alone = "lora" in MARKS[kind]
    save_file(({} if alone else original(wan())) | {MARKS[kind]: torch.ones(2)}, tmp_path / "x.safetensors")
    said = refused(ours(), tmp_path / "x.safetensors")
    assert kind in said and MARKS[kind] in said and "x.safetensors" in said


def test_a_file_that_was_packed_anew_gives_its_numbers_not_the_packed_bytes(tmp_path: Path) -> None:
    right = torch.arange(4000, dtype=torch.float32)
    torch.save({"a.weight": right}, tmp_path / "own.pth")
    with ZipFile(tmp_path / "own.pth") as own, ZipFile(tmp_path / "packed.pth", "w", ZIP_DEFLATED) as packed:
        for name in own.namelist():
            packed.writestr(name, own.read(name))
    for read in (tensors, Stored, weights.read):
        assert torch.equal(dict(read(tmp_path / "packed.pth"))["a.weight"], right)


@pytest.mark.parametrize("read", [tensors, Stored])
def test_a_file_with_two_networks_in_it_is_told(read: Callable[[Path], Any], tmp_path: Path) -> None:
    torch.save({name: {"a.weight": torch.ones(2)} for name in ("generator", "state_dict")}, tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"two\.pth holds two networks, generator and state_dict"):
        dict(read(tmp_path / "two.pth"))


@pytest.mark.parametrize("read", [tensors, Stored])
def test_a_table_within_tables_is_found_and_one_that_holds_itself_is_told(
    read: Callable[[Path], Any], tmp_path: Path
) -> None:
    torch.save({"generator": {"model": {"a.weight": torch.ones(2)}}, "step": 3}, tmp_path / "deep.pth")
    assert torch.equal(dict(read(tmp_path / "deep.pth"))["a.weight"], torch.ones(2))
    endless: dict[str, Any] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(ValueError, match=r"endless\.pth holds no table of named tensors"):
        dict(read(tmp_path / "endless.pth"))


@pytest.mark.parametrize(
    "held", ['{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": 3}}', '{"weight_map": []}', "[" * 10**5]
)
def test_an_index_of_weights_leads_nowhere_else(held: str, tmp_path: Path) -> None:
    put(tmp_path, "x.safetensors")
    (tmp_path / "net").mkdir()
    index = tmp_path / "net" / f"{ONE}.index.json"
    index.write_text(held)
    for read in (tensors, Stored):
        with pytest.raises(ValueError, match=r"index\.json"):
            dict(read(index.parent))


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n<!doctype html>", "web page"),
    ],
)
@pytest.mark.parametrize("name", ["wan.gguf", "wan.safetensors", "wan.pth", "wan.bin"])
def test_a_file_of_another_format_is_told(head: bytes, word: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(head * 40)
    if name.endswith("gguf"):
        word = "GGUF"
    for read in (lambda path: load_wan(ours(), path), lambda path: list(tensors(path)), weights.read):
        with pytest.raises(ValueError, match=word) as error:
            read(path)
        assert name in str(error.value) and "\n" not in str(error.value)


# Numbers --------------------------------------------------------------------------------------------------------------

KINDS = (torch.complex64, torch.int8, torch.uint8, torch.bool, torch.int64, torch.float8_e4m3fn, torch.int16)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def ways(path: Path, state: dict[str, Tensor]) -> dict[str, Callable[[], Any]]:
    """Every way into a network; in each the file is named."""
    with torch.device("meta"):
        empty = Small()
    return {
        "metrics": lambda: weights.read(path),
        "codecs and text": lambda: fill(empty, dict(tensors(path)), path, assign=True),
        "own": lambda: fill(Small(), state, str(path)),
    }


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_numbers_that_are_no_floats_are_refused_by_name(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    write = save_file if suffix == "safetensors" else torch.save
    state = {"weight": torch.ones(3).to(dtype)}
    write(state, path)
    word = rf"x\.{suffix}.*weight holds {str(dtype).removeprefix('torch.')} numbers"
    for way in ways(path, state).values():
        with pytest.raises(ValueError, match=word):
            way()
    whole = original(wan())
    write(whole | {"head.modulation": whole["head.modulation"].to(dtype)}, path)
    assert f"head.modulation holds {str(dtype).removeprefix('torch.')}" in refused(ours(), path)


def test_a_network_s_counters_are_integers(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(3).state_dict()
    assert state["num_batches_tracked"].dtype == torch.int64
    torch.save(state, tmp_path / "x.pth")
    weights.read(tmp_path / "x.pth")
    fill(nn.BatchNorm1d(3), state, "x")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_number_that_is_none_is_named_with_file_and_key(bad: float, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = {"weight": torch.tensor([1.0, bad, 2.0], dtype=dtype)}
    save_file(state, path)
    for way in ways(path, state).values():
        with pytest.raises(ValueError, match=r"x\.safetensors: weight holds NaN or infinity in 1 of its 3 numbers"):
            way()
    whole = original(wan())
    whole["blocks.1.ffn.2.bias"][3] = bad
    save_file(whole, path)
    with pytest.raises(ValueError, match=r"x\.safetensors: blocks\.1\.ffn\.2\.bias holds NaN or infinity in 1 of"):
        load_wan(ours(), path)


def test_large_numbers_are_numbers() -> None:
    """Their sum overflows, they do not."""
    for dtype in (torch.float32, torch.bfloat16):
        check_finite("weight", torch.full((8,), torch.finfo(dtype).max, dtype=dtype), "x")
    check_finite("weight", torch.full((100_000,), 6e4, dtype=torch.float16), "x")
    with pytest.raises(ValueError, match="in 2 of its 2"):  # infinities that cancel
        check_finite("weight", torch.tensor([float("inf"), float("-inf")]), "x")
