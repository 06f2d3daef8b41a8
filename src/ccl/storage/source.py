"""Where a model comes from: a model folder, here or on the hub, a run folder, or a checkpoint of a run.

A model folder holds config.yaml (net, text, codec, grid, sampling, the tasks that were trained, provenance, and the
encoder of a first picture as image) and model.safetensors, with weights named net.* and text.*. A run's config and
checkpoint are brought into that form, its averaged weights first. All of it may be somebody else's: nothing is
unpickled but tensors, and nothing that a config names is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ccl.files import FileError, reading, sha256
from ccl.files.yamltext import read_yaml
from ccl.model.adapter import LoRA, merge
from ccl.model.quantized import whole
from ccl.storage.hub import NoModel, snapshot
from ccl.storage.moved import is_old, refuse_old
from ccl.text.vocabulary import MOST, read_words
from ccl.weights.find import Repository, entry_of, installed, on_hub, search

CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
# The config of weights that are about to be put in place; see ccl.storage.model_folder.save_model.
NEXT = ".next-config.yaml"
NEEDED, OTHERS = ("net", "text", "codec", "grid"), ("sampling", "image", "tasks", "provenance")


@dataclass(frozen=True)
class Source:
    """A model that was found, its weights not read yet.

    Args:
        config: net, text, codec, grid, sampling, image, tasks, provenance, as YAML holds them.
        file: that the config stands in.
        weights: a file, or the folder of a sharded checkpoint.
        read: reads the weights, named net.* and text.*, and what is known with them of where they come from; adapters
            are merged, or with merged=False as they were trained.
        lora: of a run, how its adapters are scaled and where they are; None where it has none.
        trained_whole: whether a run's cross-modal modules trained beside its adapters.
        base: what a run began with, as its config has it.
        origin: of a model of the hub, what its provenance says of that beside what its config does.
    """

    config: dict[str, Any]
    file: Path
    weights: Path
    read: Callable[..., tuple[dict[str, Tensor], dict[str, Any]]]
    lora: LoRA | None = None
    trained_whole: bool = False
    base: str | None = None
    origin: dict[str, Any] = field(default_factory=dict)


def read_source(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Config in the form of a model folder, weights named net.* and text.*, and the name of the file they came from."""
    source = find_source(path)
    state, known = source.read()
    config = {**source.config, "provenance": {**source.config.get("provenance", {}), **known, **source.origin}}
    return config, state, str(source.weights)


def find_source(path: str | Path, revision: str | None = None) -> Source:
    """The model that a path stands for.

    Args:
        path: a model folder, a run folder, for its last checkpoint, or a .ckpt in one; ccl/checkpoints/... is a model
            folder that ships with the package. A text OWNER/NAME or OWNER/NAME@REVISION that is nothing here is a
            model folder of the hub.
        revision: a branch, tag or commit of the hub's, in the place of @REVISION.

    Raises:
        ValueError: one sentence that names the file, and the key where a value is wrong.
    """
    given, path = path, installed(path)
    if not path.exists() and (there := on_hub(given)) is not None:
        return _of_hub(there, revision)
    if revision is not None:
        raise ValueError(f"a revision is of a repository of the hub, OWNER/NAME, and {given} is none")
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path if path.is_absolute() else given}")
    if path.is_dir() and (path / WEIGHTS).is_file():
        return _model_folder(path)
    if (path / "checkpoints").is_dir() or (path / "run.json").is_file():
        from ccl.storage.checkpoint import last_checkpoint

        path = last_checkpoint(path / "checkpoints")
    if path.suffix != ".ckpt":
        alone = ", but a file without the config that says of which model it is" if path.is_file() else ""
        raise ValueError(
            f"{path} is neither a model folder ({CONFIG} and {WEIGHTS}) nor a run, nor a .ckpt in one{alone}"
        )
    return _checkpoint(path)


def located(source: str | Path) -> Path:
    """Where weights to begin with lie, as far as they are here: a model of ours on the hub is fetched.

    Of what is in the table of weights, and of repositories that are here whole and hold something else, nothing is
    fetched; these keep their names.

    Raises:
        ValueError: as of `ccl.storage.hub.snapshot`.
    """
    path = installed(source)
    if path.exists() or (there := on_hub(source)) is None or entry_of(str(source)) is not None:
        return path
    if (whole := search(source)) is not None and not (whole / CONFIG).is_file():
        return path
    try:
        return snapshot(there, (CONFIG, WEIGHTS))
    except NoModel as error:
        raise NoModel(f"{error}; a published backbone is fetched whole, with `{there.download}`") from error


def _of_hub(there: Repository, revision: str | None) -> Source:
    if revision is not None and there.revision is not None:
        raise ValueError(f"{there} says its revision, and revision={revision!r} says one too; give it once")
    there = Repository(there.name, revision or there.revision)
    folder = snapshot(there, (CONFIG, WEIGHTS))
    hub = {"repository": there.name, "revision": there.revision or "main", "commit": folder.name}
    return replace(_model_folder(folder), origin={"hub": hub})


def _model_folder(folder: Path) -> Source:
    file, weights = folder / CONFIG, folder / WEIGHTS
    fresh = folder / NEXT
    if fresh.is_file() and _of(read_yaml(fresh), weights):  # its export was killed as it put it in place
        file = fresh
    config = checked(read_yaml(file), file)

    def read(merged: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
        with reading(weights, "weights"):
            state = {key: tensor for key, tensor in load_file(weights).items() if key.startswith(("net.", "text."))}
        given, found = config["provenance"].get("weights_sha256"), sha256(weights)
        if given not in (None, found):
            raise FileError(
                f"{weights} is not what {file.name} beside it was written for (by sha256): it is damaged, or of "
                "another export; export or copy the model again"
            )
        return state, {"weights_sha256": found}

    return Source(config, file, weights, read)


def _of(config: dict[str, Any], weights: Path) -> bool:
    """Whether a config says that it is of these weights."""
    provenance = config.get("provenance")
    return isinstance(provenance, dict) and provenance.get("weights_sha256") == sha256(weights)


def _checkpoint(path: Path) -> Source:
    found = [folder / CONFIG for folder in path.absolute().parents[:2] if (folder / CONFIG).is_file()]
    if not found:
        raise ValueError(f"{path} has no {CONFIG} beside it or in the folder above, so its model is unknown")
    file = found[0]
    run = read_yaml(file)
    model = run["model"] if isinstance(run.get("model"), dict) else {}
    lora = _adapters(model.get("lora"), file)
    config = checked(from_run(run, file), file)
    config["provenance"] |= started(file.with_name("run.json"))
    if (words := read_words(file.parent)) is not None:
        config["provenance"]["words"] = words

    def read(merged: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
        state, step = read_checkpoint(path)
        state = whole(state)
        if lora is not None and merged:  # a model has no adapters: they are added to its weights
            state = merge(state, lora.scale)
        return state, {"step": step}

    base = model.get("pretrained")
    return Source(config, file, path, read, lora, model.get("freeze") != "all", base if isinstance(base, str) else None)


def _adapters(given: Any, file: Path) -> LoRA | None:
    """What a run's config says of its adapters.

    Raises:
        FileError: a value is of another kind.
    """
    if given is None:
        return None
    given = typed(given, dict, file, "model.lora")
    rank = typed(given.get("rank"), int, file, "model.lora.rank")
    alpha = typed(given.get("alpha"), (int, float), file, "model.lora.alpha")
    if rank < 1:
        raise FileError(f"{file}: model.lora.rank is {rank}; it must be positive")
    return LoRA(rank, alpha)


def checked(config: dict[str, Any], file: Path) -> dict[str, Any]:
    """A model's config, as far as its own keys go: what stands below them is `ccl.storage.trust`'s.

    Raises:
        FileError: a key is missing or unknown, or `provenance` or what it holds is of another kind.
    """
    if lacking := [key for key in NEEDED if config.get(key) is None]:
        raise FileError(f"{file}: its config has no {lacking[0]}")
    refuse_old(config, file)
    if unknown := [key for key in config if key not in (*NEEDED, *OTHERS)]:
        raise FileError(f"{file} has the key {str(unknown[0])[:80]!r}, which no model has")
    provenance = typed(config.get("provenance") or {}, dict, file, "provenance")
    for key, kind in {"codec": str, "weights_sha256": str}.items():
        if provenance.get(key) is not None:
            typed(provenance[key], kind, file, f"provenance.{key}")
    words = typed(provenance.get("words") or [], list, file, "provenance.words")
    if len(words) > MOST:
        raise FileError(f"{file}: provenance.words holds {len(words)} words; {MOST} are the most")
    for index, word in enumerate(words):
        typed(word, str, file, f"provenance.words.{index}")
    if strange := [key for key in provenance if not isinstance(key, str)]:
        raise FileError(f"{file}: provenance has the key {str(strange[0])[:80]!r}, which is no text")
    return {**config, "provenance": provenance}


KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}


def typed(value: Any, kind: Any, file: Path, place: str) -> Any:
    """A value of a file that must be of a type.

    Raises:
        FileError: it is of another.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise FileError(f"{file}: {place} is {str(value)[:80]!r}; it must be {KINDS.get(kind, 'a number')}")
    return value


def from_run(config: dict[str, Any], file: Path = Path(CONFIG)) -> dict[str, Any]:
    """The config of a run in the form of a model folder."""
    model = typed(config.get("model") or {}, dict, file, "model")
    model = typed(model.get("init_args", model) or {}, dict, file, "model.init_args")
    missing = [
        key for key, place in (("grid", config), ("codec", config), ("net", model), ("text", model)) if key not in place
    ]
    if missing:
        raise ValueError(f"the run's {file} has no {missing[0]}, so its model cannot be built")
    codec = typed(config["codec"], dict, file, "codec")
    return {
        "net": model["net"],
        "text": model["text"],
        **({"image": model["image"]} if model.get("image") else {}),
        **({"tasks": tasks} if known_tasks(tasks := model.get("tasks")) else {}),
        "codec": codec if "class_path" in codec else {"class_path": "ccl.codecs.Codec", "init_args": codec},
        "grid": config["grid"],
        "sampling": config.get("sampling") or model.get("sampling") or {},
        "provenance": {"run": config.get("name"), "seed": config.get("seed_everything")},
    }


def known_tasks(tasks: Any) -> bool:
    """Whether there are tasks, in today's form; without, a model is sampled as one that learned the paper's."""
    return isinstance(tasks, dict) and bool(tasks) and not any(is_old(task) for task in tasks.values())


def started(path: Path) -> dict[str, Any]:
    """Commit, versions and codec of a run's last start, as far as they were written down."""
    if not path.is_file():
        return {}
    with reading(path, "the record of a run"):
        record = typed(json.loads(path.read_text(encoding="utf-8")), dict, path, "it")
        starts = typed(record.get("starts", []), list, path, "starts")
        last = typed(starts[-1], dict, path, "the last of starts") if starts else {}
        if last.get("codec") is not None:
            typed(last["codec"], str, path, "codec of the last of starts")
        return {key: last[key] for key in ("commit", "dirty", "versions", "codec") if key in last}


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """Weights of a run's checkpoint, the average where there is one, and its step."""
    from ccl.storage.checkpoint import load_checkpoint, step_of, verify
    from ccl.storage.sharded_checkpoint import read_sharded

    if path.is_dir():
        verify(path)
        with reading(path, "a checkpoint"):
            state, step = read_sharded(path), step_of(path.resolve())
    else:
        checkpoint = load_checkpoint(path)
        state = typed(checkpoint["state_dict"], dict, path, "state_dict")
        step = typed(checkpoint.get("global_step", 0), int, path, "global_step")
    for name, value in state.items():
        typed(name, str, path, "a name in state_dict")
        if not isinstance(value, Tensor):
            raise FileError(f"{path}: {name} in state_dict is {str(value)[:80]!r}; it must be a tensor")
    average = {k.removeprefix("ema."): v for k, v in state.items() if k.startswith("ema.")}
    return {k: v for k, v in {**state, **average}.items() if k.startswith(("net.", "text."))}, step
