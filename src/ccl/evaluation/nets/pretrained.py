"""Networks of transformers, from a folder as the hub has it: config.json, weights, tokenizer.

Nothing is fetched, nothing of a folder is run, and weights are filled in strictly: whatever lacks a key, or has one too
many, is refused in a sentence.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ccl.files import machine_trouble
from ccl.weights import catalogue as weights
from ccl.weights.fill import fill
from ccl.weights.read import read_json, tensors

FILES = ("model.safetensors", "pytorch_model.bin")
# What some releases of transformers keep in a file and others make anew; their values follow from the config.
DERIVED = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")


@dataclass(frozen=True)
class Pretrained:
    """A folder of the hub.

    Args:
        folder: of config.json and the tokenizer.
        file: of the weights.
    """

    folder: Path
    file: Path

    @classmethod
    def find(cls, name: str, given: str | Path | None = None) -> Pretrained:
        """The weights called `name`, or given by hand as their folder or as a file in it.

        Raises:
            MissingWeights: they are not here.
            ValueError: the folder holds none.
        """
        place = weights.locate(name, given)
        if place.is_file():
            return cls(place.parent, place)
        for file in FILES:
            if (place / file).is_file():
                return cls(place, place / file)
        raise ValueError(f"{place}, given as the weights of {name}, holds neither {' nor '.join(FILES)}")

    def network(self, cls: Any, what: str, renamed: Mapping[str, str] = MappingProxyType({})) -> Any:
        """The network, a class of transformers, for use and not for training.

        Args:
            cls: its class.
            what: its name in errors.
            renamed: parts of names that the file has otherwise than the network may have them, in order: releases of
                transformers rename parts of networks, and published files stay as they are.

        Raises:
            ValueError: the folder is of another network; one sentence.
        """
        config = read_json(self.folder / "config.json")
        if config.get("model_type") != cls.config_class.model_type:
            kind = config.get("model_type") or "another network"
            raise ValueError(f"{self.folder / 'config.json'} is of {kind}, not of {what}")
        with torch.random.fork_rng():  # it draws weights, which the file's take the place of
            net = cls(cls.config_class.from_dict(config))
        state = dict(tensors(self.file, lambda name: not name.endswith(DERIVED)))
        own = net.state_dict().keys()
        state = {own_name(name, own, renamed): tensor for name, tensor in state.items()}
        fill(net, state, self.file, kind=what, without=lambda name: name.endswith(DERIVED))
        return net.eval().requires_grad_(False)

    def tokenizer(self, cls: Any, what: str) -> Any:
        """The tokenizer, a class of transformers, which would be an empty one where its files are not there.

        Raises:
            ValueError: they are not, or are not its own.
        """
        sets = (("tokenizer.json",), ("vocab.json", "merges.txt"))
        if not any(all((self.folder / file).is_file() for file in files) for files in sets):
            raise ValueError(f"{self.folder} has no tokenizer of {what}: tokenizer.json, or vocab.json and merges.txt")
        return self.part(cls, f"tokenizer of {what}")

    def part(self, cls: Any, what: str) -> Any:
        """A class of transformers from its files in the folder. ValueError where they are not there or not its own."""
        try:
            return cls.from_pretrained(self.folder, local_files_only=True)
        except Exception as error:  # of many kinds, as transformers and tokenizers meet them
            if machine_trouble(error):
                raise
            reason = " ".join(str(error).split())[:160]
            raise ValueError(f"{self.folder} has no {what} that can be read: {reason}") from error


def own_name(name: str, own: Container[str], renamed: Mapping[str, str]) -> str:
    """A weight's name in the network: its own, or with its parts renamed."""
    if name in own:
        return name
    for old, new in renamed.items():
        name = name.replace(old, new)
    return name
