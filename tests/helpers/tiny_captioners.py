"""The smallest models that transformers describes pictures with, of random weights, as folders that are published."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "a", "man", "red", "ball", "on", "wall", "describe"]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
)


def tiny_llava(folder: Path) -> Path:
    """One that takes a chat, of several pictures."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **tokens, additional_special_tokens=["<image>"])
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    shown = {"patch_size": 16, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    vision = CLIPVisionConfig(**SMALL, num_hidden_layers=2, image_size=32, patch_size=16, projection_dim=16)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = LlamaConfig(vocab_size=len(WORDS), **SMALL, num_hidden_layers=1, num_key_value_heads=2, **ids)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    # That it says something in few words: the first token is not the last.
    model.generation_config.update(min_new_tokens=2, bad_words_ids=[[0], [1], [3], [4]])
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
        LlavaProcessor(images, tokenizer, **shown, chat_template=CHAT).save_pretrained(folder)
    return folder


def tiny_blip(folder: Path) -> Path:
    """One that takes none, and goes on from a text."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *WORDS[5:]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    kind = {**SMALL, "num_hidden_layers": 1, "projection_dim": 16}
    ids = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**kind, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 512, **ids}
    config = BlipConfig(text_config=text, vision_config={**kind, "image_size": 32, "patch_size": 16}, projection_dim=16)
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(config)
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
        images = BlipImageProcessorPil(size={"height": 32, "width": 32})
        BlipProcessor(images, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder
