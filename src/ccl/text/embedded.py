"""A small text encoder trained with the model: hashed words, where each stands in the speech, and a transformer.

Words outside quotes say how things look, one state each. Words inside double quotes are spoken: one state a letter, or
a word, which carries how many letters are said before and after it. Speech takes roughly constant time a letter, so
the counts tell the audio stream about when each is heard; with letters it need not learn where in a word it is. The
vector of a letter is its word's and that of its neighbourhood. Character n-grams give an unseen word a vector near its
look-alikes.

B prompts, L states, D width, U distinct words of a batch, K pieces of a word.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl import arguments
from ccl.rng import seed_of
from ccl.text.base import TextEncoder, check_length

OPEN_QUOTE, CLOSE_QUOTE, END = "<open>", "<close>", "<end>"
_MARKS = frozenset({OPEN_QUOTE, CLOSE_QUOTE, END})
# A word keeps its apostrophes and hyphens ("don't"); anything else that is not a space stands alone.
_TOKEN = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "\u2019": "'"})
_LONGEST_WORD = 40


class Token(NamedTuple):
    """One word, mark or punctuation sign of a prompt.

    Args:
        text: lower-cased.
        spoken: stands inside double quotes.
        before: letters spoken before it, in its own quotation.
        after: letters spoken after it.
        letter: which of the word's letters it is; None is all of them.
    """

    text: str
    spoken: bool = False
    before: int = 0
    after: int = 0
    letter: int | None = None


def tokenize(prompt: str) -> list[Token]:
    """Words, punctuation and quotation marks, with the place of spoken words; an end token comes last.

    An opened quotation that is never closed runs to the end of the prompt.
    """
    tokens: list[Token] = []
    said: list[str] | None = None  # the words of the open quotation

    def speak(words: list[str]) -> None:
        total, before = sum(map(len, words)), 0
        for word in words:
            tokens.append(Token(word, True, before, total - before - len(word)))
            before += len(word)

    text = unicodedata.normalize("NFKC", prompt).translate(_QUOTES).casefold()
    for word in _TOKEN.findall(text):
        if word == '"':
            if said is None:
                tokens.append(Token(OPEN_QUOTE))
                said = []
            else:
                speak(said)
                tokens.append(Token(CLOSE_QUOTE))
                said = None
        elif said is None:
            tokens.append(Token(word))
        else:
            said.append(word)
    speak(said or [])
    return [*tokens, Token(END)]


def spelled(tokens: Iterable[Token]) -> list[Token]:
    """The same with a token for each letter of a spoken word."""
    return [letter for token in tokens for letter in (_letters(token) if token.spoken else [token])]


def _letters(word: Token) -> Iterator[Token]:
    size = len(word.text)
    for i in range(size):
        yield Token(word.text, True, word.before + i, word.after + size - 1 - i, i)


def words_of(prompt: str) -> list[str]:
    """The words of a prompt, spoken or not, each once and where it first comes; marks and punctuation are none."""
    found = (token.text for token in tokenize(prompt) if token.text not in _MARKS)
    return list(dict.fromkeys(text for text in found if text[0].isalnum()))


@lru_cache(maxsize=65_536)
def pieces(word: str, buckets: int) -> tuple[int, ...]:
    """Buckets of a word: the whole word first, then its 3- to 5-grams with boundary marks (as in fastText).

    A stable hash, so that a saved table means the same in every process.
    """
    word = word[:_LONGEST_WORD]
    grams: list[str] = []
    if word not in _MARKS and len(word) > 1:
        marked = f"<{word}>"
        grams = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1) if n < len(marked)]
    return tuple(seed_of(kind, s) % buckets for kind, s in [("word", word), *(("gram", g) for g in grams)])


@lru_cache(maxsize=65_536)
def letter_pieces(word: str, letter: int, buckets: int) -> tuple[int, ...]:
    """Buckets of a letter in its word: the word first, then the letter alone, with each neighbour and with both."""
    around = f"<{word}>"[letter : letter + 3]
    heard = [("letter", around[1]), ("left", around[:2]), ("right", around[1:]), ("both", around)]
    return tuple(seed_of(kind, s) % buckets for kind, s in [("word", word[:_LONGEST_WORD]), *heard])


class _Block(nn.Module):
    """Pre-norm self-attention and a feed-forward of four times the width."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm1(x)), "b l (n h d) -> n b h l d", n=3, h=self.heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(rearrange(attended, "b h l d -> b l (h d)"))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class EmbeddedText(TextEncoder):
    """Prompts to (B, length, dim) states, zeros after the end token.

    Args:
        dim: width of a state; a multiple of `heads`.
        length: states of a prompt, the end token included; a longer prompt is cut.
        layers: transformer layers.
        heads: attention heads.
        buckets: rows of the hashed table that words and their n-grams share.
        frequencies: sine and cosine pairs for each letter count of what is spoken.
        letters: a state for each letter of a spoken word; otherwise one for the word.

    Raises:
        ValueError: where `dim` is not a multiple of `heads`, or a prompt cannot hold a word and the end token.
    """

    def __init__(
        self,
        dim: int = 128,
        length: int = 48,
        layers: int = 2,
        heads: int = 4,
        buckets: int = 4096,
        frequencies: int = 8,
        letters: bool = False,
    ) -> None:
        super().__init__()
        arguments.number("text layers", layers, 1, arguments.DEEPEST, whole=True)
        arguments.number("text buckets", buckets, 1, arguments.MOST, whole=True)
        for name, size in {"dim": dim, "heads": heads, "frequencies": frequencies}.items():
            arguments.number(f"text {name}", size, 1, arguments.WIDEST, whole=True)
        if dim % heads:
            raise ValueError(f"text dim is {dim}; it must be a multiple of the {heads} heads")
        check_length(length)
        self.dim, self.length, self.buckets, self.frequencies = dim, length, buckets, frequencies
        self.letters = letters
        self.table = nn.Parameter(torch.empty(buckets, dim))
        self.position = nn.Parameter(torch.empty(length, dim))
        self.spoken = nn.Parameter(torch.empty(dim))
        self.place = nn.Linear(3 * 2 * frequencies, dim)  # letters before, in and after a spoken word
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Set every parameter anew, in place, so that a build on the meta device can be filled."""
        # Words start well apart and louder than their positions: identity is there from step 0, order is learned.
        nn.init.normal_(self.table, std=0.5)
        nn.init.normal_(self.position, std=0.1)
        nn.init.normal_(self.spoken, std=0.5)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, _Block)
            for last in (block.out, block.down):
                nn.init.normal_(last.weight, std=(last.in_features * 2 * len(self.blocks)) ** -0.5)

    def forward(self, prompts: list[str]) -> Float[Tensor, "b l d"]:
        arguments.texts("prompts", prompts)
        tokens = [self._cut(self._tokens(prompt)) for prompt in prompts]
        device = self.table.device
        longest = max(map(len, tokens))  # the zeros after it need no computing
        valid = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, line in enumerate(tokens):
            valid[row, : len(line)] = True
        flat = [token for line in tokens for token in line]
        counts = torch.tensor([(t.before, len(t.text), t.after) for t in flat], device=device)
        spoken = torch.tensor([t.spoken for t in flat], device=device)

        place = self.spoken + self.place(self._waves(counts).to(self.place.weight.dtype))
        words = self._words([(t.text, t.letter) for t in flat]) + spoken[:, None] * place
        valid = valid.to(device)
        x = words.new_zeros(len(prompts), longest, self.dim)
        x[valid] = words
        x = x + self.position[:longest]
        # Every prompt holds its end token, so no row of the softmax is empty.
        mask = valid[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return F.pad(self.norm(x) * valid[..., None], (0, 0, 0, self.length - longest))

    def _tokens(self, prompt: str) -> list[Token]:
        return spelled(tokenize(prompt)) if self.letters else tokenize(prompt)

    def _cut(self, tokens: list[Token]) -> list[Token]:
        return tokens if len(tokens) <= self.length else [*tokens[: self.length - 1], tokens[-1]]

    def _words(self, words: list[tuple[str, int | None]]) -> Float[Tensor, "n d"]:
        """Vectors of words, or of one letter of each: the word's row plus the scaled sum of its other pieces' rows."""
        distinct = {word: i for i, word in enumerate(dict.fromkeys(words))}  # each is embedded once
        ids = [
            pieces(word, self.buckets) if letter is None else letter_pieces(word, letter, self.buckets)
            for word, letter in distinct
        ]
        widest = max(map(len, ids))
        index = torch.tensor([[*row, *[0] * (widest - len(row))] for row in ids])
        weight = torch.zeros(index.shape)
        for i, row in enumerate(ids):
            weight[i, : len(row)] = max(len(row) - 1, 1) ** -0.5  # so that they weigh as much as the word itself
        weight[:, 0] = 1
        rows = F.embedding(index.to(self.table.device), self.table)
        vectors = (rows * weight.to(rows)[..., None]).sum(1)  # (U, K, D) -> (U, D)
        return vectors[torch.tensor([distinct[word] for word in words], device=vectors.device)]

    def _waves(self, counts: Tensor) -> Float[Tensor, "n f"]:
        """Sines and cosines of letter counts, periods from 4 to about 128 letters."""
        periods = 4 * 2 ** torch.linspace(0, 5, self.frequencies, device=counts.device)
        angles = counts[..., None] * (2 * math.pi / periods)
        return rearrange(torch.cat([angles.sin(), angles.cos()], -1), "n c f -> n (c f)")
