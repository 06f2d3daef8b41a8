"""A small umT5 of random weights, and a tokenizer trained on a few sentences."""

from __future__ import annotations

import io
import json
from pathlib import Path

import sentencepiece
import torch
from transformers import UMT5Config, UMT5EncoderModel

VOCABULARY = 58
SENTENCES = (
    "a cat says hello world",
    'a woman with long hair speaks: "good morning, everyone"',
    "waves roll onto the beach at dusk",
    "the quick brown fox jumps over the lazy dog",
    "ein Hund bellt laut im Garten",
)
SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64}


def encoder(seed: int = 0, **sizes) -> UMT5EncoderModel:
    torch.manual_seed(seed)
    net = UMT5EncoderModel(UMT5Config(**SIZES | sizes)).eval().requires_grad_(False)
    for name, p in net.named_parameters():
        p.normal_(1.0 if "layer_norm" in name else 0.0, 0.3)
    return net


def save_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=VOCABULARY,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    marks = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0, **marks})
    )
