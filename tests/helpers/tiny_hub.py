"""Folders as the hub has them of CLAP and CLIP, very small: weights drawn from a seed, tokenizers of single bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def byte_letters() -> list[str]:
    """The 256 letters that byte-level BPE writes bytes in."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return list(bytes_to_unicode().values())


def tiny_clap(folder: Path, *, fusion: bool = False, seed: int = 0) -> Path:
    """ClapModel 16 wide, with its tokenizer and feature extractor."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
             "num_hidden_layers": 2, "enable_fusion": fusion, "projection_dim": 16}  # fmt: skip
    text = {"vocab_size": 261, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 90, "projection_dim": 16}  # fmt: skip
    vocab = {name: i for i, name in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *byte_letters()])}
    RobertaTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    ClapFeatureExtractor(
        frequency_min=50, truncation="fusion" if fusion else "rand_trunc", padding="repeatpad"
    ).save_pretrained(folder)
    return saved(ClapModel, ClapConfig(audio_config=audio, text_config=text, projection_dim=16), folder, seed)


def tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """CLIPModel 16 wide for pictures of 32 pixels, with its tokenizer."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = byte_letters()
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[]).save_pretrained(folder)
    layers: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    layers |= {"intermediate_size": 32, "projection_dim": 16}
    text = {**layers, "vocab_size": len(names), "bos_token_id": len(names) - 2, "eos_token_id": len(names) - 1}
    vision = {**layers, "image_size": 32, "patch_size": 8}
    return saved(CLIPModel, CLIPConfig(text_config=text, vision_config=vision, projection_dim=16), folder, seed)


def saved(cls: Any, config: Any, folder: Path, seed: int) -> Path:
    """The folder, with a network whose weights are wide enough to tell inputs apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = cls(config)
        for parameter in net.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    net.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == cls.config_class.model_type
    return folder
