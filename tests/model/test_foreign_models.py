"""Damaged models, by a seed: each is loaded, or told in one sentence that names the file."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccl.storage.model_folder import build, load_model, save_model
from helpers.tiny import run_folder, tiny_config, tiny_state

WRONG: list[Any] = [None, [], {}, "", "os.system", 0, -1, 10**9, 1.5, float("nan"), True, [None], {1: 2}]
WRONG += [{"class_path": "os.system"}, {"class_path": "ccl.guidance.UCG2", "init_args": 3}]


def slots(tree: Any) -> list[tuple[Any, Any]]:
    """Every place of a tree that can be written to: (its holder, its key)."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [found for key in keys for found in ((tree, key), *slots(tree[key]))]


def slip(tree: Any, chance: random.Random) -> Any:
    """The tree with one value gone, under another name or of another type."""
    tree = copy.deepcopy(tree)
    holder, key = chance.choice(slots(tree))
    kind = chance.random()
    if kind < 0.2:
        del holder[key]
    elif kind < 0.3 and isinstance(holder, dict):
        holder[chance.choice([7, "another", "class_path"])] = holder.pop(key)
    else:
        holder[key] = chance.choice(WRONG)
    return tree


def torn(content: bytes, chance: random.Random) -> bytes:
    """Cut off, or with some bytes of the beginning changed."""
    if chance.random() < 0.4:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(8):
        changed[chance.randrange(min(len(changed), 2000))] = chance.randrange(256)
    return bytes(changed)


def yaml_slip(content: bytes, chance: random.Random) -> bytes:
    return yaml.safe_dump(slip(yaml.safe_load(content), chance)).encode()


def json_slip(content: bytes, chance: random.Random) -> bytes:
    return json.dumps(slip(json.loads(content), chance)).encode()


def state_slip(content: bytes, chance: random.Random) -> bytes:
    """A checkpoint with another state: no table, no texts as names, no tensors, no floats, not finite."""
    checkpoint = torch.load(io.BytesIO(content), weights_only=True)
    state = checkpoint["state_dict"]
    name = chance.choice(list(state))
    value = state.pop(name)
    changes: list[Callable[[], Any]] = [
        lambda: checkpoint.update(state_dict=chance.choice(WRONG)),
        lambda: state.update({7: value}),
        lambda: state.update({name: chance.choice(WRONG)}),
        lambda: state.update({name: value * float("nan")}),
        lambda: state.update({name: value.to(torch.complex64)}),
        lambda: state.update({name: value.to(torch.int8)}),
        lambda: state.update({name: value[None]}),
        lambda: (state.update({name: value}), checkpoint.update(global_step=chance.choice(WRONG))),
    ]
    chance.choice(changes)()
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder and a run."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "model", tiny_config(), tiny_state())
    run = run_folder(folder, tiny_state()).parents[1]
    start = {"commit": "a", "dirty": False, "versions": {"torch": "2"}, "codec": None}
    (run / "run.json").write_text(json.dumps({"name": "x", "starts": [start]}))
    return folder


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model/config.yaml", yaml_slip),
        ("model/config.yaml", torn),
        ("model/model.safetensors", torn),
        ("runs/x/config.yaml", yaml_slip),
        ("runs/x/run.json", json_slip),
        ("runs/x/run.json", torn),
        ("runs/x/checkpoints/last.ckpt", state_slip),
        ("runs/x/checkpoints/last.ckpt", torn),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_model_is_told_in_a_sentence_that_names_the_file(
    name: str, damage: Callable[[bytes, random.Random], bytes], seed: int, models: Path
) -> None:
    file = models / name
    whole = file.read_bytes()
    file.write_bytes(damage(whole, random.Random(seed)))
    try:
        load_model(models.joinpath(*Path(name).parts[: 1 if name.startswith("model") else 2]))
    except (ValueError, OSError) as error:
        assert str(models) in str(error) and "\n" not in str(error), error
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.to(torch.complex64), "holds complex64 numbers; weights are float16"),
        (lambda x: x.to(torch.int8), "holds int8 numbers; weights are float16"),
        (lambda x: x.where(x != x.view(-1)[1], torch.nan), "holds NaN or infinity in 1 of its 3,072 numbers"),
        (lambda x: x.where(x != x.view(-1)[1], -torch.inf), "holds NaN or infinity in 1 of its 3,072 numbers"),
    ],
)
@pytest.mark.parametrize("half", [True, False])
def test_weights_of_a_network_that_are_no_numbers_are_named(
    change: Callable[[torch.Tensor], torch.Tensor], said: str, half: bool, tmp_path: Path
) -> None:
    state, key = tiny_state(), "net.blocks.1.video.ffn.0.weight"
    checkpoint = run_folder(tmp_path, state | {key: change(state[key])})
    with pytest.raises(ValueError, match=rf"last\.ckpt: {key.removeprefix('net.')} {said}"):
        load_model(checkpoint, half=half)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("grid.stride_time", 8, "grid.stride_time is 8, and the video codec has 4"),
        ("grid.latent_rate", 30.0, "grid.latent_rate is 30, and the audio codec has 31.25"),
        ("net.init_args.audio.channels", 20, "the network's audio stream has 20 channels, and the audio codec has 40"),
    ],
)
def test_a_model_whose_codec_is_of_another_shape_is_not_built(key: str, value: float, said: str) -> None:
    config = tiny_config()
    *path, last = key.split(".")
    node = config
    for name in path:
        node = node[name]
    node[last] = value
    with pytest.raises(ValueError, match=rf"^here: its config\.yaml does not give a model: {said}"):
        build(config, "here")
