"""The nodes for ComfyUI, in a stand-in of what it does with nodes: finds, checks and runs them, one after the other."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ccl.generation import Pipeline
from ccl.media import MediaError, read_clip
from ccl.storage import model_folder
from ccl.types import AV
from helpers import ROOT
from helpers.hub_server import COMMIT, serving_tiny
from helpers.tiny import PROMPTS, tiny_config, tiny_pipeline, tiny_state

KINDS = {"STRING": str, "INT": int, "FLOAT": float, "BOOLEAN": bool, "IMAGE": torch.Tensor, "AUDIO": dict}
STEPS: list[tuple[int, int]] = []


class Bar:
    """What comfy.utils.ProgressBar is called with."""

    def __init__(self, total: int) -> None:
        self.total = total

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        STEPS.append((value, total or self.total))


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder of a stand-in of ComfyUI's modules."""

    def get_save_image_path(prefix: str, folder: str, width: int = 0, height: int = 0) -> tuple[Any, ...]:
        full = Path(folder) / Path(prefix).parent
        full.mkdir(parents=True, exist_ok=True)
        name = Path(prefix).name
        taken = [int(found[1]) for file in full.iterdir() if (found := re.match(rf"{name}_(\d+)_", file.name))]
        return str(full), name, max(taken, default=0) + 1, str(Path(prefix).parent), prefix

    comfy, utils, paths = ModuleType("comfy"), ModuleType("comfy.utils"), ModuleType("folder_paths")
    comfy.utils, utils.ProgressBar = utils, Bar  # type: ignore[attr-defined]
    paths.get_output_directory = lambda: str(tmp_path / "output")  # type: ignore[attr-defined]
    paths.get_save_image_path = get_save_image_path  # type: ignore[attr-defined]
    for module in (comfy, utils, paths):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    STEPS.clear()
    return tmp_path / "output"


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Any]]:
    """The classes of the folder, which is loaded by its path, under a name that is none of Python's."""
    name = "/custom_nodes/ccl"
    spec = importlib.util.spec_from_file_location(name, ROOT / "comfyui" / "__init__.py")
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    assert package.NODE_CLASS_MAPPINGS.keys() == package.NODE_DISPLAY_NAME_MAPPINGS.keys()
    yield package.NODE_CLASS_MAPPINGS
    for loaded in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[loaded]


def check(kind: Any, settings: dict[str, Any], value: Any) -> None:
    """What ComfyUI checks of a value before it runs a node."""
    if isinstance(kind, list):
        assert value in kind, f"{value} is none of {kind}"
    elif kind in KINDS:
        assert isinstance(value, KINDS[kind]), f"{value!r} is no {kind}"
        if kind in ("INT", "FLOAT"):
            assert settings.get("min", value) <= value <= settings.get("max", value)


def run(nodes: dict[str, Any], workflow: dict[str, Any]) -> dict[str, Any]:
    """Results of each node of a workflow, in the order of their numbers."""
    done: dict[str, Any] = {}
    for number in sorted(workflow, key=int):
        node = nodes[workflow[number]["class_type"]]
        inputs = node.INPUT_TYPES()
        known = {**inputs["required"], **inputs.get("optional", {})}
        values = {}
        for name, value in workflow[number]["inputs"].items():
            kind, *settings = known[name]
            if isinstance(value, list):
                source, at = value
                assert nodes[workflow[source]["class_type"]].RETURN_TYPES[at] == kind
                value = done[source][at]
            check(kind, *(settings or [{}]), value)
            values[name] = value
        assert inputs["required"].keys() <= values.keys()
        done[number] = getattr(node(), node.FUNCTION)(**values)
        if not getattr(node, "OUTPUT_NODE", False):
            assert len(done[number]) == len(node.RETURN_TYPES)
    return done


def generated(nodes: dict[str, Any], name: str, pipe: Pipeline, **inputs: Any) -> Any:
    how = {"prompt": PROMPTS[0], "seed": 0, "steps": 2, "guidance": "the model's own"}
    return getattr(nodes[name](), nodes[name].FUNCTION)(model=pipe, **how | inputs)


def test_each_node_says_what_comfyui_asks_of_one(nodes: dict[str, Any]) -> None:
    assert len(nodes) == 4
    for node in nodes.values():
        assert node.CATEGORY == "CCL" and callable(getattr(node, node.FUNCTION))
        inputs = node.INPUT_TYPES()
        assert set(inputs) <= {"required", "optional", "hidden"}
        for kind, *settings in [field for group in inputs.values() for field in group.values()]:
            assert isinstance(kind, str | list)
            if settings and "default" in settings[0]:
                check(kind, settings[0], settings[0]["default"])


def test_the_workflow_that_lies_there_writes_a_film_with_its_sound(
    nodes: dict[str, Any], output: Path, tmp_path: Path
) -> None:
    model_folder.save_model(tmp_path / "tiny", tiny_config(), tiny_state())
    workflow = json.loads((ROOT / "comfyui" / "text_to_clip.json").read_text())
    workflow["1"]["inputs"]["model"] = str(tmp_path / "tiny")
    workflow["2"]["inputs"]["steps"] = 3
    done = run(nodes, workflow)
    shown = done["3"]["ui"]["images"][0]
    assert shown == {"filename": "clip_00001_.mp4", "subfolder": "ccl", "type": "output"}
    film = read_clip(output / "ccl" / "clip_00001_.mp4")
    assert film.video is not None and film.video.shape == (9, 16, 16, 3) and film.audio is not None
    assert STEPS == [(1, 3), (2, 3), (3, 3)]
    assert run(nodes, workflow)["3"]["ui"]["images"][0]["filename"] == "clip_00002_.mp4"


def test_the_node_that_loads_takes_a_name_of_the_hub(
    nodes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_tiny(tmp_path, monkeypatch):
        (pipe,) = nodes["CCLLoad"]().load(" user/tiny@v1\n", "float32", False)
        assert pipe.provenance["hub"] == {"repository": "user/tiny", "revision": "v1", "commit": COMMIT}
        with pytest.raises(ValueError, match=r"user/other here and no repository of that name on the hub"):
            nodes["CCLLoad"]().load("user/other", "float32", False)


def test_a_node_makes_the_very_clip_that_ccl_makes(nodes: dict[str, Any], output: Path) -> None:
    pipe = tiny_pipeline()
    images, audio, fps = generated(nodes, "CCLTextToClip", pipe, seed=2**64 - 1, guidance="ucg3", steps=3)
    own = pipe(PROMPTS[0], seed=2**64 - 1, guidance="ucg3", steps=3)
    assert images.shape == (9, 16, 16, 3) and images.dtype == torch.float32
    assert np.array_equal((images * 255).round().byte().numpy(), own.video)
    assert audio["waveform"].shape == (1, 1, pipe.grid.samples) and audio["sample_rate"] == 16_000
    assert np.array_equal(audio["waveform"][0, 0].numpy(), own.audio) and fps == own.fps


def test_a_sound_of_two_channels_and_another_rate_is_brought_to_the_models(nodes: dict[str, Any], output: Path) -> None:
    pipe = tiny_pipeline()
    time = torch.arange(48_000) / 48_000
    tone = 0.4 * torch.sin(2 * torch.pi * 300 * time)
    given = {"waveform": torch.stack([2 * tone, 0 * tone])[None], "sample_rate": 48_000}
    images, audio, _ = generated(nodes, "CCLClipForSound", pipe, audio=given)
    assert images.shape == (9, 16, 16, 3) and audio["sample_rate"] == 16_000
    inner = slice(100, pipe.grid.samples - 100)  # a filter sees silence before the beginning
    assert torch.allclose(audio["waveform"][0, 0, inner], tone[::3][inner], atol=2e-3)


def test_several_sounds_at_once_are_refused_in_words(nodes: dict[str, Any], output: Path) -> None:
    two = {"waveform": torch.zeros(2, 1, 9000), "sample_rate": 16_000}
    with pytest.raises(ValueError, match="a batch of 2 sounds; give one"):
        generated(nodes, "CCLClipForSound", tiny_pipeline(), audio=two)


def test_what_was_cut_of_a_sound_is_logged(
    nodes: dict[str, Any], output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = {"waveform": torch.rand(1, 1, 32_000) - 0.5, "sample_rate": 16_000}
    with caplog.at_level(logging.WARNING, "ccl"):
        generated(nodes, "CCLClipForSound", tiny_pipeline(), audio=long)
    assert "the sound lasts 2.00 s" in caplog.text


def test_pictures_alone_become_a_film_that_is_silent(nodes: dict[str, Any], output: Path) -> None:
    shown = nodes["CCLSave"]().save(torch.rand(5, 32, 32, 4), 10.0, "mute")["ui"]["images"][0]
    film = read_clip(output / shown["filename"], require=AV(True, False))
    assert film.video is not None and film.video.shape == (5, 32, 32, 3)
    with pytest.raises(MediaError, match="no audio stream"):
        read_clip(output / shown["filename"])
