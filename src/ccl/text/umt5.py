"""umT5-xxl, as Wan2.1 reads prompts: transformers' UMT5EncoderModel with Wan's cleaning.

Each prompt goes through the encoder alone and without padding: attention is masked to the prompt's own tokens, so what
it says depends neither on padding nor on the other prompts of a batch. States after the last token are zeros.

B prompts, L states, D width.
"""

from __future__ import annotations

import html
import re
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ccl import arguments
from ccl.text.base import TextEncoder, check_length
from ccl.weights.fill import fill
from ccl.weights.find import find
from ccl.weights.frozen import Frozen, Precision
from ccl.weights.read import digest, read_json, stamp, tensors

WHAT = "the text encoder umT5"
ORIGINAL = "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER = ("tokenizer.json", "spiece.model")  # a folder with either holds a tokenizer

# Wan's names -> transformers'. wi_0 is the branch that goes through the GELU.
WAN_TO_HF: tuple[tuple[str, str], ...] = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (
        r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
    ),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)
SHARED, TIED = "shared.weight", "encoder.embed_tokens.weight"  # one table under two names


class UMT5(TextEncoder):
    """Prompts to (B, length, dim) states of umT5-xxl; frozen.

    Nothing is read before the first prompt, so a model can be built where the weights are not. The network is held
    outside the module tree and is no part of a checkpoint; it goes where the module is sent.

    Args:
        path: a pipeline's folder in diffusers' layout (text_encoder/ and tokenizer/ in it), a folder with both
            together, a folder of Wan's own release or its .pth file, a name of `ccl weights list`, or OWNER/REPO of the
            hub.
        tokenizer: folder of the tokenizer, where it does not lie with the weights.
        dim: width of a state.
        length: states of a prompt, the end token included; a longer prompt is cut.
        dtype: the network computes in; states are float32 all the same.
        remembered: prompts whose states are kept, so that they are not encoded again; the empty one always is.

    Raises:
        ValueError: `length` cannot hold a word and the end token. When first used: there are no such weights or no
            tokenizer, or they are of another width; one sentence.
    """

    sources = ("path", "tokenizer")
    _place: Tensor

    def __init__(
        self,
        path: str | Path,
        tokenizer: str | Path | None = None,
        dim: int = 4096,
        length: int = 512,
        dtype: Precision = "bfloat16",
        remembered: int = 64,
    ) -> None:
        super().__init__()
        check_length(length)
        self.path, self.tokenizer_path = path, tokenizer
        self.dim, self.length, self.remembered = dim, length, remembered
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.network: Frozen[Any] = Frozen(self._load)
        self._tokenizer: Any = None
        self._states: OrderedDict[str, Tensor] = OrderedDict()  # of cleaned prompts, on the CPU, oldest first
        # Prompts lie on no device; this follows the module to where the states are wanted.
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def identity(self) -> str:
        """Hash of the norms and position biases, which no two trainings share: cheap, where all weights are 11 GB."""
        source, _ = locate(self.path)
        return f"umt5-{self.dim}-{_digest(source, stamp(source))}"

    def unload(self) -> None:
        """Forget the network; prompts that are remembered need none."""
        self.network.unload()

    @torch.no_grad()
    def forward(self, prompts: list[str] | Tensor, mask: Tensor | None = None) -> Float[Tensor, "b l d"]:
        """Encode prompts, or ready token ids.

        Args:
            prompts: texts; or ids (B, n) of the tokenizer, the end token included, n at most `length`.
            mask: (B, n) with ids: which of them are a prompt's own, from the first on; true or 1.

        Raises:
            ValueError: in words, for one text in the place of a list, and for ids or a mask that are none.
        """
        if isinstance(prompts, Tensor):
            encoded = [self._run(ids) for ids in self._own_ids(prompts, mask)]
        elif mask is not None:
            raise ValueError("mask goes with token ids; texts bring their own")
        else:
            arguments.texts("prompts", prompts)
            encoded = [self._encode(clean(prompt)) for prompt in prompts]
        states = torch.zeros(len(encoded), self.length, self.dim, device=self._place.device)
        for row, own in zip(states, encoded, strict=True):
            row[: len(own)] = own.to(row)
        return states

    def _own_ids(self, ids: Tensor, mask: Tensor | None) -> list[list[int]]:
        """Ids of each prompt without padding, which the encoder never sees."""
        shape = tuple(ids.shape)
        if ids.ndim != 2 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ValueError(f"token ids have shape {shape} and type {ids.dtype}; integers (B, n) are needed")
        if shape[1] > self.length:
            raise ValueError(f"{shape[1]} token ids a prompt are given; the text encoder takes {self.length}")
        if mask is None:
            raise ValueError(f"token ids need their attention mask, {shape}: padding is no part of a prompt")
        arguments.instance("mask", mask, Tensor, f"a tensor {shape}")
        if mask.shape != ids.shape:
            raise ValueError(f"the mask has shape {tuple(mask.shape)}; that of the token ids is {shape}")
        own = mask.bool()
        counts = own.sum(1)
        prefix = torch.arange(shape[1], device=mask.device) < counts[:, None]
        if not torch.equal(own, prefix) or not bool((counts > 0).all()):
            raise ValueError("the mask must hold for the first tokens of each prompt, at least one, and no others")
        return [row[:n] for row, n in zip(ids.tolist(), counts.tolist(), strict=True)]

    def _encode(self, prompt: str) -> Tensor:
        """(tokens, D) states of a cleaned prompt."""
        if prompt not in self._states:
            self._states[prompt] = self._run(self.tokens(prompt)).cpu()
        for recent in (prompt, ""):  # the empty prompt, which every guided clip needs, never grows old
            if recent in self._states:
                self._states.move_to_end(recent)
        encoded = self._states[prompt]
        while len(self._states) > max(self.remembered, 1):
            self._states.popitem(last=False)
        return encoded

    def _run(self, ids: list[int]) -> Tensor:
        net = self.network.on(self._place.device)
        if max(ids) >= net.config.vocab_size or min(ids) < 0:
            wrong = max(ids) if max(ids) >= net.config.vocab_size else min(ids)
            raise ValueError(
                f"the tokenizer gives the token {wrong}, but {self.path} has {net.config.vocab_size}: it is of "
                "another text encoder"
            )
        with torch.autocast(self._place.device.type, enabled=False):
            return net(torch.tensor([ids], device=self._place.device)).last_hidden_state[0]

    def tokens(self, prompt: str) -> list[int]:
        """Ids of a cleaned prompt, the end token last, however long it was."""
        if self._tokenizer is None:
            self._tokenizer = self._load_tokenizer()
        return self._tokenizer(prompt, truncation=True, max_length=self.length, add_special_tokens=True).input_ids

    def _load(self, device: torch.device) -> Any:
        from transformers import UMT5EncoderModel

        source, config = locate(self.path)
        if config.d_model != self.dim:
            raise ValueError(f"{source} has states of {config.d_model} numbers; the text encoder is set to {self.dim}")
        with torch.device("meta"):
            net = UMT5EncoderModel(config)
        state = {name: tensor.to(device, self.dtype) for name, tensor in read_state(source)}
        for name, other in ((SHARED, TIED), (TIED, SHARED)):  # a file may hold the table once
            if name not in state and other in state:
                state[name] = state[other]
        fill(net, state, source, assign=True)
        net.tie_weights()
        return net

    def _load_tokenizer(self) -> Any:
        # Not AutoTokenizer: beside a config.json of umT5 it reads no spiece.model.
        from transformers import T5Tokenizer

        folder = find_tokenizer(self.path, self.tokenizer_path)
        try:
            return T5Tokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers and tokenizers raise whatever the files provoke
            short = " ".join(str(error).split())[:160]
            raise ValueError(f"the tokenizer in {folder} cannot be read ({short})") from error


def clean(prompt: str) -> str:
    """A prompt as Wan2.1 hands it to the tokenizer: mended characters, no HTML entities, single spaces."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def locate(path: str | Path) -> tuple[Path, Any]:
    """Where the weights lie, a folder of transformers' layout or a single file of Wan's, and their UMT5Config.

    Raises:
        ValueError: there are none, or they are of another network.
    """
    from transformers import UMT5Config

    place = find(path, WHAT)
    configs = (folder / "config.json" for folder in (place, place / "text_encoder"))
    found = {file: read_json(file) for file in configs if file.is_file()}
    for file, config in found.items():
        if config.get("model_type") == "umt5":
            return file.parent, UMT5Config(**config)
    single = place / ORIGINAL if place.is_dir() else place
    if single.is_file():
        return single, _sizes(single)
    if found:
        file, config = next(iter(found.items()))
        kind = config.get("model_type") or config.get("_class_name") or "another network"
        raise ValueError(f"{file} is of {kind}, not of {WHAT}")
    raise ValueError(f"{place} holds nothing of {WHAT}: no config.json, no text_encoder/config.json, no {ORIGINAL}")


def find_tokenizer(path: str | Path, given: str | Path | None = None) -> Path:
    """The folder of the tokenizer: the one given, or where each layout has it.

    Raises:
        ValueError: there is none.
    """
    what = "the tokenizer of umT5"
    places = [find(given, what)] if given is not None else []
    if given is None:
        place = find(path, WHAT)
        around = place if place.is_dir() else place.parent
        places = [around / "tokenizer", around, around.parent / "tokenizer", around / "google" / "umt5-xxl"]
    for folder in places:
        if any((folder / name).is_file() for name in TOKENIZER):
            return folder
    raise ValueError(f"{places[0]} holds no tokenizer ({' or '.join(TOKENIZER)})")


def read_state(source: Path, *, small: bool = False) -> list[tuple[str, Tensor]]:
    """Weights in transformers' names, from either layout; only the norms and position biases if `small`."""

    def wanted(name: str) -> bool:
        if name.startswith(("decoder.", "lm_head.")):  # of a whole umT5
            return False
        return not small or "layer_norm" in to_hf(name) or "relative_attention_bias" in to_hf(name)

    return [(to_hf(name), tensor) for name, tensor in tensors(source, wanted)]


def to_hf(name: str) -> str:
    """A name of Wan's layout in transformers'; one that is already is left as it is."""
    for pattern, new in WAN_TO_HF:
        name = re.sub(pattern, new, name)
    return name


def _sizes(file: Path) -> Any:
    """Config of an encoder in one file of Wan's layout, which says nothing but its shapes."""
    from transformers import UMT5Config

    shapes = {name: tensor.shape for name, tensor in tensors(file)}
    try:
        buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
        return UMT5Config(
            vocab_size=shapes["token_embedding.weight"][0],
            d_model=shapes["token_embedding.weight"][1],
            d_kv=shapes["blocks.0.attn.q.weight"][0] // heads,
            d_ff=shapes["blocks.0.ffn.fc1.weight"][0],
            num_layers=len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
            num_heads=heads,
            relative_attention_num_buckets=buckets,
        )
    except KeyError as error:
        raise ValueError(f"{file} is no encoder of umT5 in Wan's layout: it has no {error.args[0]}") from error


@lru_cache(maxsize=8)
def _digest(source: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    """Of the small weights; read once for each state of the files in a process."""
    return digest(dict(read_state(source, small=True)))
