"""`ccl schema`: a JSON Schema of the configs of `ccl fit`, with which an editor completes keys and marks what is wrong.

jsonargparse describes the arguments as the parser has them. What is changed is what a stack of files has beside: a file
may hold any part of a config, a part may be a YAML file of its own, and a class may be the user's. Of Lightning's
trainer the names of its arguments are told: with all that their types admit the schema would be many times as large.
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from ccl import __version__
from ccl.cli.fit import FitCLI
from ccl.cli.parser import Parser

# A class of somebody else's, whose arguments are not known here.
FOREIGN = {
    "type": "object",
    "properties": {"class_path": {"type": "string", "pattern": r"^(?!ccl\.).*\."}},
    "required": ["class_path"],
}
FILE = {"type": "string", "pattern": r"\.ya?ml$", "description": "A YAML file that holds this part."}


def main(argv: list[str]) -> int:
    Parser(
        "schema",
        "Print a JSON Schema of the configs of `ccl fit`, for editors. The first line of a config then names it: "
        "# yaml-language-server: $schema=ccl.schema.json",
        "ccl schema > ccl.schema.json",
    ).parse(argv)
    sys.stdout.write(json.dumps(schema(), indent=1) + "\n")
    return 0


class Described(FitCLI):
    """Builds the parser of `ccl fit` without Lightning's trainer, and takes its schema."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=True)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.described = json.loads(parser.get_completion_script("jsonschema"))
        self.config = Namespace(seed_everything=False)  # nothing is built


def schema() -> dict[str, Any]:
    """Of a file of a stack of configs."""
    import ccl.callbacks
    import ccl.image
    import ccl.interaction  # noqa: F401 - each kind is known by the classes that are imported

    found = loosened(Described([], build=False).described)
    found["title"] = f"ccl {__version__}: a config of `ccl fit`, or an overlay"
    arguments = [name for name in inspect.signature(Trainer).parameters if name != "self"]
    trainer: dict[str, Any] = {"type": "object", "properties": dict.fromkeys(arguments, True)}
    callbacks = {"anyOf": [{"type": "array", "items": callback()}, {"type": "null"}, FILE]}
    trainer["properties"] |= {"callbacks": callbacks, "callbacks+": callbacks}  # with + to those of files before
    found["properties"]["trainer"] = {
        **trainer,
        "additionalProperties": False,
        "description": "Lightning's Trainer: https://lightning.ai/docs/pytorch/stable/common/trainer.html",
    }
    return found


def callback() -> dict[str, Any]:
    """A callback of the trainer: ours by name, or anybody's."""
    import ccl.callbacks

    ours = [f"ccl.callbacks.{name}" for name in ccl.callbacks.__all__]
    own = {"type": "object", "properties": {"class_path": {"enum": ours}}, "required": ["class_path"]}
    return {"anyOf": [own, FOREIGN]}


def loosened(node: Any) -> Any:
    """A schema in which no key must be there, a part may be a file, and a class may be the user's."""
    if isinstance(node, list):
        return [loosened(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: loosened(value) for key, value in node.items() if key != "required"}
    parts = node.get("anyOf", [])
    if any("class_path" in part.get("properties", {}) for part in parts):
        node["anyOf"] = [*parts, FOREIGN]
    elif any(is_tree(part) for part in parts) and not any(part.get("type") == "string" for part in parts):
        node["anyOf"] = [*parts, FILE]
    return node


def is_tree(part: dict[str, Any]) -> bool:
    """Whether it is an object of the schema itself, which a file may hold."""
    return part.get("type") == "object" or "$ref" in part
