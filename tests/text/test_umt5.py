"""umT5: transformers' encoder as diffusers' Wan pipeline calls it is the oracle; for Wan's own layout, a naive one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from diffusers import WanPipeline
from torch import Tensor
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from ccl.text.umt5 import ORIGINAL, UMT5, clean, find_tokenizer, locate, to_hf
from ccl.weights.fill import fill
from helpers.umt5_files import SENTENCES, encoder, save_tokenizer

LENGTH = 40
PROMPTS = [SENTENCES[1], "", "a  cat &amp;amp; a dog", " ".join(SENTENCES)]


def original(name: str) -> str:
    """The name in Wan's .pth of a parameter of UMT5EncoderModel, written down from Wan's module tree."""
    name = re.sub(r"^encoder\.block\.(\d+)\.layer\.\d\.", r"blocks.\1.", name)
    for new, old in {
        "shared.": "token_embedding.",
        "encoder.final_layer_norm.": "norm.",
        "SelfAttention.relative_attention_bias.": "pos_embedding.embedding.",
        "SelfAttention.": "attn.",
        "DenseReluDense.wi_0.": "ffn.gate.0.",
        "DenseReluDense.wi_1.": "ffn.fc1.",
        "DenseReluDense.wo.": "ffn.fc2.",
    }.items():
        name = name.replace(new, old)
    return name


def wans(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of UMT5EncoderModel in Wan's layout."""
    out = {}
    for name, tensor in state.items():
        if name != "encoder.embed_tokens.weight":
            norm = "norm2" if ".layer.1." in name else "norm1"
            out[original(name).replace("layer_norm", norm)] = tensor
    return out


@pytest.fixture(scope="module")
def net() -> UMT5EncoderModel:
    return encoder()


@pytest.fixture(scope="module")
def folder(net: UMT5EncoderModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder: text_encoder/ in shards, tokenizer/ trained on a few sentences."""
    folder = tmp_path_factory.mktemp("pipeline")
    net.save_pretrained(folder / "text_encoder", max_shard_size="20KB")
    assert (folder / "text_encoder" / "model.safetensors.index.json").is_file()
    save_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def release(net: UMT5EncoderModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Wan releases it: one file of weights, the tokenizer in google/umt5-xxl."""
    folder = tmp_path_factory.mktemp("release")
    torch.save(wans(net.state_dict()), folder / ORIGINAL)
    save_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def ours(path: Path, **settings) -> UMT5:
    return UMT5(path, **{"dim": 32, "length": LENGTH, "dtype": "float32"} | settings)


def diffusers_states(net: UMT5EncoderModel, folder: Path, prompts: list[str]) -> Tensor:
    """As diffusers' Wan pipeline encodes: cleaned, padded to the full length, masked, zeroed after the last token."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    pipeline = SimpleNamespace(tokenizer=tokenizer, text_encoder=net, _execution_device="cpu")
    return WanPipeline._get_t5_prompt_embeds(pipeline, prompts, max_sequence_length=LENGTH)


def naive(state: dict[str, Tensor], ids: list[int], heads: int = 4) -> Tensor:
    """Wan's T5 encoder in its own names, one prompt, without padding."""

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * state[f"{name}.weight"]

    def bucket(distance: int) -> int:  # 32 buckets: 16 each way, 8 of them exact, the others logarithmic up to 128
        half, exact = 16 * (distance > 0), abs(distance)
        if exact >= 8:
            scaled = torch.log(torch.tensor(exact / 8)) / torch.log(torch.tensor(128 / 8)) * 8
            exact = min(15, 8 + int(scaled))
        return half + exact

    n = len(ids)
    buckets = torch.tensor([[bucket(key - query) for key in range(n)] for query in range(n)])
    x = state["token_embedding.weight"][ids]
    for i in range(2):
        p = f"blocks.{i}"
        h = norm(x, f"{p}.norm1")
        q, k, v = (
            (h @ state[f"{p}.attn.{name}.weight"].T).view(n, heads, -1).transpose(0, 1) for name in ("q", "k", "v")
        )
        bias = state[f"{p}.pos_embedding.embedding.weight"][buckets].permute(2, 0, 1)
        attended = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v  # not scaled
        x = x + attended.transpose(0, 1).reshape(n, -1) @ state[f"{p}.attn.o.weight"].T
        h = norm(x, f"{p}.norm2")
        gate = F.gelu(h @ state[f"{p}.ffn.gate.0.weight"].T, approximate="tanh")
        x = x + (gate * (h @ state[f"{p}.ffn.fc1.weight"].T)) @ state[f"{p}.ffn.fc2.weight"].T
    return norm(x, "norm")


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_states_are_those_of_diffusers_pipeline(net, folder):
    states = ours(folder)(PROMPTS)
    assert states.shape == (4, LENGTH, 32) and states.dtype == torch.float32
    assert relative(states, diffusers_states(net, folder, PROMPTS)) < 1e-5


def test_wans_own_layout_computes_the_same_as_a_naive_encoder(net, release):
    text = ours(release)
    ids = text.tokens(PROMPTS[0])
    assert relative(text(PROMPTS[:1])[0, : len(ids)], naive(wans(net.state_dict()), ids)) < 1e-5


def test_every_layout_gives_the_same_states(net, folder, release, tmp_path):
    together = tmp_path / "together"
    net.save_pretrained(together)
    shutil.copytree(folder / "tokenizer", together, dirs_exist_ok=True)
    states = ours(folder)(PROMPTS)
    for path in (together, release, release / ORIGINAL, folder / "text_encoder"):
        # Not to the last bit: tensors mapped from files may lie off the boundaries that vector units like.
        assert relative(ours(path)(PROMPTS), states) < 1e-6, path
    elsewhere = tmp_path / "weights.pth"
    shutil.copy(release / ORIGINAL, elsewhere)
    assert relative(ours(elsewhere, tokenizer=folder / "tokenizer")(PROMPTS), states) < 1e-6


def test_names_go_to_wans_layout_and_back_at_full_size():
    xxl = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    with torch.device("meta"):
        state = UMT5EncoderModel(xxl).state_dict()
    theirs = wans(state)
    assert len(theirs) == 242
    assert {"blocks.23.norm2.weight", "blocks.0.pos_embedding.embedding.weight", "norm.weight"} < theirs.keys()
    assert {to_hf(name) for name in theirs} == state.keys() - {"encoder.embed_tokens.weight"}
    assert sum(x.numel() for x in theirs.values()) == pytest.approx(5.681e9, rel=1e-3)


# Prompts


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("  two   spaces\n\tand lines ", "two spaces and lines"),
        ("fish &amp;amp; chips", "fish & chips"),
        ("&lt;b&gt;", "<b>"),
        ("schÃ¶n", "schön"),
        ("she says: “hello”", 'she says: "hello"'),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_prompts_are_cleaned_as_wan_does(prompt, cleaned):
    assert clean(prompt) == cleaned


def test_tokens_are_sentencepieces_with_the_end_token(folder):
    text = ours(folder)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer" / "spiece.model"))
    for prompt in (*SENTENCES, "\uff43\uff41\uff54, \u732b", ""):
        assert text.tokens(prompt) == [*pieces.encode(prompt)[: LENGTH - 1], 1]


def test_a_long_prompt_is_cut_and_keeps_its_end_token(folder):
    ids = ours(folder, length=8).tokens(" ".join(SENTENCES))
    assert len(ids) == 8 and ids[-1] == 1
    assert ours(folder, length=8)(["a cat " * 50]).shape == (1, 8, 32)


def test_states_after_the_last_token_are_zeros(folder):
    text = ours(folder)
    states = text(PROMPTS)
    for row, prompt in zip(states, PROMPTS, strict=True):
        length = len(text.tokens(clean(prompt)))
        assert bool(row[:length].abs().sum(-1).gt(0).all())
        assert not row[length:].any()


def test_the_empty_prompt_is_encoded_and_not_zero(folder):
    text = ours(folder)
    states = text(["", "  "])
    assert text.tokens("") == [1]
    assert bool(states[0, 0].abs().max() > 0.01) and not states[0, 1:].any()
    assert torch.equal(states[0], states[1])


def test_a_prompts_states_do_not_depend_on_its_batch(folder):
    assert torch.equal(ours(folder)(PROMPTS)[2], ours(folder)(PROMPTS[2:3])[0])


def test_what_was_encoded_is_remembered_and_the_empty_prompt_for_good(folder, monkeypatch):
    text, runs = ours(folder, remembered=3), []
    run = text._run
    monkeypatch.setattr(text, "_run", lambda ids: runs.append(ids) or run(ids))
    for prompts in (["", "a"], ["a", ""], ["b"], ["c"], ["d"], ["", "d"], ["a"]):
        text(prompts)
    assert runs == [text.tokens(prompt) for prompt in ("", "a", "b", "c", "d", "a")]
    assert len(text._states) == 3


def test_states_that_are_handed_out_are_not_the_remembered_ones(folder):
    text = ours(folder)
    first = text(["a cat"])
    kept = first.clone()
    first.zero_()
    assert torch.equal(text(["a cat"]), kept)


# Precision, memory and where the network lives


def test_states_are_float32_whatever_the_network_computes_in(folder):
    fine, coarse = ours(folder)(PROMPTS), ours(folder, dtype="bfloat16")(PROMPTS)
    assert coarse.dtype == torch.float32
    assert 1e-5 < relative(coarse, fine) < 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(folder)(PROMPTS), fine)


def test_an_encoder_knows_its_shape_where_no_weights_are_and_carries_nothing(folder):
    absent = UMT5("nowhere/at-all")
    assert (absent.dim, absent.length) == (4096, 512)
    text = ours(folder)
    text(["a cat"])
    assert text.state_dict() == {} and list(text.parameters()) == [] and list(text.modules()) == [text]
    assert not any(p.requires_grad for p in text.network.net.parameters())
    fill(text, {}, "a model's file, which holds no text.*")
    assert text.to("meta")._place.device.type == "meta"  # where it is sent, prompts go


def test_an_unloaded_encoder_comes_back_and_still_remembers(folder):
    text = ours(folder)
    states = text(["a cat"])
    text.unload()
    assert torch.equal(text(["a cat"]), states) and text.network.net is None
    text(["a dog"])
    assert text.network.net is not None


def test_identity_is_of_the_weights_not_of_their_layout(net, folder, release, tmp_path):
    assert ours(folder).identity == ours(release / ORIGINAL).identity
    assert re.fullmatch(r"umt5-32-[0-9a-f]{12}", ours(folder).identity)
    encoder(seed=1).save_pretrained(tmp_path)
    assert ours(tmp_path).identity != ours(folder).identity


# Bad input


def test_a_repository_that_is_not_here_names_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match=r"not on this machine: `ccl weights fetch wan2\.1-t2v-14b`, or name a folder"):
        UMT5("Wan-AI/Wan2.1-T2V-14B-Diffusers")(["a cat"])
    with pytest.raises(ValueError, match=r"there is no file or folder \./none, given as the text encoder umT5"):
        UMT5("./none")(["a cat"])


def test_another_networks_folder_is_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="holds nothing of the text encoder umT5: no config"):
        locate(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match=r"config\.json is of t5, not of the text encoder umT5"):
        locate(tmp_path)
    with pytest.raises(ValueError, match="has states of 32 numbers; the text encoder is set to 4096"):
        UMT5(folder)(["a cat"])
    with pytest.raises(ValueError, match="text length is 1"):
        UMT5(folder, length=1)


def test_a_missing_or_broken_tokenizer_is_named(net, folder, tmp_path):
    net.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds no tokenizer \(tokenizer.json or spiece.model\)"):
        find_tokenizer(tmp_path)
    shutil.copytree(folder / "tokenizer", tmp_path, dirs_exist_ok=True)
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"the tokenizer in .* cannot be read"):
        ours(tmp_path)(["a cat"])


def test_a_tokenizer_of_another_encoder_is_refused(folder, tmp_path):
    encoder(vocab_size=8).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"the tokenizer gives the token \d+, but .* has 8: it is of another"):
        ours(tmp_path, tokenizer=folder / "tokenizer")(["a cat"])


def test_a_truncated_or_absent_shard_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shard = sorted((tmp_path / "text_encoder").glob("*.safetensors"))[1]
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(ValueError, match=f"{shard.name} cannot be read as weights"):
        ours(tmp_path)(["a cat"])
    shard.unlink()
    with pytest.raises(
        ValueError, match=rf"text_encoder lacks {shard.name}, which model\.safetensors\.index\.json names"
    ):
        ours(tmp_path)(["a cat"])


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


def test_a_file_that_would_run_code_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"norm.weight": Bomb()}, ORIGINAL)
    with pytest.raises(ValueError, match=f"{ORIGINAL} cannot be read as weights"):
        ours(tmp_path, tokenizer=folder / "tokenizer")(["a cat"])
    assert not Path("bomb-went-off").exists()


def test_keys_that_lack_or_are_too_many_are_named(net, folder, tmp_path):
    state, path = wans(net.state_dict()), tmp_path / ORIGINAL
    cases = {
        "lacks 1 keys of UMT5EncoderModel, the first is encoder.final_layer_norm.weight": {"norm.weight": None},
        "has 1 keys that UMT5EncoderModel has not, the first is blocks.0.other": {"blocks.0.other": torch.zeros(1)},
        "no encoder of umT5 in Wan's layout: it has no token_embedding.weight": {"token_embedding.weight": None},
    }
    for message, change in cases.items():
        torch.save({name: x for name, x in (state | change).items() if x is not None}, path)
        with pytest.raises(ValueError, match=message):
            ours(path, tokenizer=folder / "tokenizer")(["a cat"])


# Token ids


def test_ready_token_ids_are_encoded_as_diffusers_encodes_their_texts(net, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    batch = tokenizer(
        [clean(p) for p in PROMPTS], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    text = ours(folder)
    states = text(batch.input_ids, batch.attention_mask)
    assert states.shape == (4, LENGTH, 32) and relative(states, diffusers_states(net, folder, PROMPTS)) < 1e-6
    assert torch.equal(states, text(batch.input_ids, batch.attention_mask.bool()))
    ids, mask = batch.input_ids, batch.attention_mask
    for wrong, said in (
        ((ids,), "need their attention mask"),
        ((ids, mask[:, 1:]), "the mask has shape"),
        ((ids, mask.flip(1)), "for the first tokens of each prompt"),
        ((ids, torch.zeros_like(mask)), "at least one"),
        ((ids.float(), mask), r"integers \(B, n\) are needed"),
        ((ids[0], mask[0]), r"integers \(B, n\) are needed"),
        ((ids.repeat(1, 9), mask), f"the text encoder takes {LENGTH}"),
        ((ids + 64, mask), "it is of another text encoder"),
        ((["a cat"], mask), "texts bring their own"),
    ):
        with pytest.raises(ValueError, match=said):
            text(*wrong)
