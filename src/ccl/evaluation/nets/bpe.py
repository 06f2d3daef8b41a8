"""CLIP's byte-pair tokens, from the list of merges that openai/CLIP publishes (bpe_simple_vocab_16e6.txt.gz, MIT).

As ImageBind's SimpleTokenizer: text is mended (ftfy), freed of HTML's escapes and of spare blanks, in small letters.
The marks of start and end are plain text where a prompt writes them.
"""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Sequence
from pathlib import Path

import ftfy
import torch
from jaxtyping import Int64
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from ccl.files import FileError, reading

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 49_152 - 256 - 2  # of the file's lines, as CLIP reads it; the rest are of no network
PARTS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokens:
    """Texts to tokens.

    Args:
        file: of merges, packed by gzip.

    Raises:
        ValueError: it holds no list of merges.
    """

    def __init__(self, file: Path) -> None:
        with reading(file, "a list of merges"):
            lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
        merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines if line)]
        if not merges or not all(second and " " not in second for _, second in merges):
            raise FileError(f"{file} cannot be read as a list of merges (a line is no pair)")
        letters = pre_tokenizers.ByteLevel.alphabet()
        ordered = sorted(letters, key=_byte_order)
        names = [*ordered, *(f"{letter}</w>" for letter in ordered), *("".join(pair) for pair in merges), START, END]
        self.ids = {name: number for number, name in enumerate(names)}
        bpe = models.BPE(vocab=self.ids, merges=merges, end_of_word_suffix="</w>", cache_capacity=0)
        self.coder = Tokenizer(bpe)
        split = pre_tokenizers.Split(Regex(f"(?i:{PARTS})"), behavior="removed", invert=True)
        self.coder.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        self.coder.decoder = decoders.ByteLevel()

    def __call__(self, texts: Sequence[str], length: int = 77) -> Int64[Tensor, "n l"]:
        """Each text's tokens between start and end, cut to `length` and filled up with 0."""
        rows = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            tokens = [self.ids[START], *self.encode(text)[: length - 2], self.ids[END]]
            row[: len(tokens)] = torch.tensor(tokens)
        return rows

    def encode(self, text: str) -> list[int]:
        """The tokens of a text alone."""
        clean = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        return self.coder.encode(re.sub(r"\s+", " ", clean).strip().lower()).ids


def _byte_order(letter: str) -> tuple[bool, int]:
    """CLIP counts bytes that are their own letters first, then the others, whose letters begin at 256."""
    return ord(letter) >= 256, ord(letter)
