"""`ccl inspect ... --json`: the figures of the lines, for a script."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ccl.cli import main
from ccl.inspection.attention import figure
from ccl.inspection.quantized import figures_of, lines
from ccl.inspection.route import told as seen
from ccl.inspection.seams import Steps
from ccl.inspection.voice import Kept
from ccl.inspection.words import Worth
from ccl.model.adapter import LoRA
from ccl.model.save_lora import save_comfyui
from ccl.storage.model_folder import save_model
from ccl.types import AV
from helpers.tiny import awake, tiny_config, tiny_pipeline, tiny_state


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with room for a sentence, that was trained to be given voices."""
    config = tiny_config()
    config["grid"] |= {"frames": 77}
    config["tasks"] = yaml.safe_load(Path("configs/tasks/voice.yaml").read_text())
    folder = tmp_path_factory.mktemp("json") / "model"
    save_model(folder, config, tiny_state())
    return folder


def interval(one: dict[str, Any]) -> str:
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" if "value" in one else "-"


def of_words(told: Any) -> Iterator[str]:
    assert [(one["part"], one["stream"]) for one in told["figures"]] == [("words", "audio"), ("description", "video")]
    for one in told["figures"]:
        yield f"t = {told['settings']['time']:g}, {one['of']}: {one['worth']:+.4f}"
        yield f"[{one['low']:+.4f}, {one['high']:+.4f}]"
        yield f"of {one['loss']:.4f}, {one['raised']} of {one['clips']} clips"


def of_attention(told: Any) -> Iterator[str]:
    assert [one["time"] for one in told["figures"]] == told["settings"]["times"] == [0.5]
    for at in told["figures"]:
        yield f"t = {at['time']:g}, {at['clips']} clips"
        for direction, (one, other) in {"a2v": ("background", "mouth"), "v2a": ("silence", "voice")}.items():
            found = at[direction]
            yield f"{direction}: share of context tokens: " + ", ".join(
                f"{region} {interval(each)}" for region, each in found["share"]["context"].items()
            )
            if "value" in (ratio := found[f"share_{one}_to_{other}"]["context"]):
                yield f"{direction}: that share, {one} to {other}: {interval(ratio)}"
                yield f"{other} to {one}: {interval(found[f'left_{other}_to_{one}'])}"
        yield ", ".join(f"{region} {interval(each)}" for region, each in at["a2v"]["last_token"].items())
        for region, each in at["v2a"]["on_mouth"].items():
            if "value" in each:
                even = at["v2a"]["on_mouth_if_even"][region]["value"]
                yield f"on the mouth, {region}: {interval(each)}, where even attention had {even:.3f}"


def of_quantized(told: Any) -> Iterator[str]:
    (at,) = told["figures"]
    ways = at["distance_to_float32"]
    for stream in ("video", "audio"):
        for block in (0, 1):
            yield f"  {block:<12}" + "".join(f"{way[stream]['after_blocks'][block]:>19.2e}" for way in ways.values())
        yield "  velocity    " + "".join(f"{way[stream]['velocity']:>19.2e}" for way in ways.values())


def of_route(told: Any) -> Iterator[str]:
    assert told["settings"]["guidance"] and {row["kind"] for row in told["figures"]} == {"task", "pass"}
    for row in told["figures"]:
        both = [(row[stream]["state"], seen(tuple(row[stream]["attends_to"]))) for stream in ("video", "audio")]
        yield " ".join([row["kind"], row["name"], *sum(both, ())])


def of_alignment(told: Any) -> Iterator[str]:
    how = told["settings"]
    yield f"t_v {how['latent_frames']} latent frames, t_a {how['audio_tokens']} audio tokens, c {how['c']}"
    assert [one["centre"] for one in told["figures"] if one["this_config"]] == [how["centre"]]
    for one in told["figures"]:
        assert one["furthest_seconds"] in one["drift_seconds"] and one["last_seconds"] == one["drift_seconds"][-1]
        yield f"{one['centre']}: last frame {one['last_seconds']:+.3f} s, the furthest {one['furthest_seconds']:+.3f} s"
        yield f"half a window: {one['half_window_seconds']:.3f} s"
        lost = len(one["unseen_tokens"])
        yield f"{lost} audio tokens are seen by no frame" if lost else "all tokens are seen"
        yield f"{one['seen_times']:.2f} times on average"


def of_seams(told: Any) -> Iterator[str]:
    assert [one["of"] for one in told["figures"]] == ["gone on from", "the true clips"]
    for one in told["figures"]:
        yield f"{one['of']}: {sum(map(len, one['seams']))} seams of {len(one['seams'])} clips"
        for name in ("pictures", "bend", "spectrum"):
            at = one[name]
            yield f"{at['at_seams']:.4g} at seams, {at['elsewhere']:.4g} elsewhere, {at['times']:.2f} times"
            yield f"rank {at['rank']:.2f}, the worst {at['worst']:.2f}"
            assert at["worst"] == max(at["ranks"]) and len(at["ranks"]) == 2


def of_voice(told: Any) -> Iterator[str]:
    assert [one["of"] for one in told["figures"]] == ["given", "alone", "codec"]
    for name, one in zip(("pitch kept", "without the voice", "through the codec"), told["figures"], strict=True):
        off = one["semitones_off"]
        how = off["not_measured"] if isinstance(off, dict) else f"{off:.2f} semitones off"
        yield f"{name} in {one['kept']} of {one['clips']} ({how})"


VERBS: dict[str, tuple[str, Callable[[Any], Iterator[str]]]] = {
    "words": ("--ckpt MODEL --clips 2 --draws 1", of_words),
    "attention": ("--ckpt MODEL --clips 2 --times 0.5 -o OUT", of_attention),
    "quantized": ("--ckpt MODEL --clips 1 --times 0.5", of_quantized),
    "route": ("--ckpt MODEL -o OUT/route.svg", of_route),
    "alignment": ("--config configs/joint.yaml -o OUT/windows.png", of_alignment),
    "seams": ("--ckpt MODEL --world 2 --steps 1", of_seams),
    "voice": ("--ckpt MODEL --clips 2 --steps 1 -o OUT", of_voice),
}


@pytest.mark.parametrize("verb", VERBS)
def test_json_is_all_of_stdout_and_has_the_figures_of_the_lines(
    verb: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, expected = VERBS[verb]
    argv = ["inspect", verb, *options.replace("MODEL", str(model)).replace("OUT", str(tmp_path)).split()]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lines = "\n".join(" ".join(line.split()) for line in said.splitlines())
    for part in expected(told):
        assert " ".join(part.split()) in lines
    assert list(told) == ["ccl", "settings", "figures", "files"]
    if "--ckpt" in argv:
        assert told["settings"]["ckpt"] == str(model) and len(told["settings"]["weights"]) == 64
    assert bool(told["files"]) == ("-o" in argv) and all(Path(file).is_file() for file in told["files"])


NONE = np.array([np.nan, np.nan])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (Worth(np.ones(2), NONE).figures, str(Worth(np.ones(2), NONE))),
        (Steps(np.ones(1), np.ones(0), NONE[:1]).figures, str(Steps(np.ones(1), np.ones(0), NONE[:1]))),
        (Kept(NONE, NONE, NONE).figures, str(Kept(NONE, NONE, NONE))),
        ((nothing := figures_of({"int8": [AV(np.nan, 0.5)]}, 0.5, 1)), "\n".join(lines(nothing))),
    ],
    ids=["words", "seams", "voice", "quantized"],
)
def test_what_is_no_number_is_told_with_its_reason(told: Any, said: str) -> None:
    assert "not_measured" in json.dumps(told, allow_nan=False) and "nan" not in said


def test_a_figure_of_one_clip_has_no_interval() -> None:
    assert figure(np.full(1, 0.3), np.ones(1), "context") == {"value": 0.3, "clips": 1}
    assert figure(np.ones(2), np.zeros(2), "context") == {"not_measured": "what it is divided by is 0"}


def test_a_config_without_windows_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    interaction = ["--model.net.init_args.interaction", "configs/interaction/ovi.yaml"]
    assert main(["inspect", "alignment", "--config", "configs/joint.yaml", *interaction, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["no_windows"] == "this config has no windows: its interaction has no alignment"
    assert not any(one["this_config"] for one in told["figures"])


def test_a_model_is_looked_into_with_a_lora_on_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted = LoRA(rank=2).adapt(copy.deepcopy(tiny_pipeline().net))
    awake(adapted, 4)
    save_comfyui(tmp_path / "style.safetensors", adapted.state_dict(), LoRA(rank=2), dtype=torch.float32)
    argv = ["inspect", "words", "--ckpt", str(model), "--device", "cpu", "--clips", "2", "--draws", "1", "--json"]
    told = []
    for more in ([], ["--lora", f"{tmp_path / 'style.safetensors'}=0.5"]):
        assert main([*argv, *more]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert [len(one["settings"]["loras"]) for one in told] == [0, 1]
    assert told[1]["settings"]["loras"][0]["scale"] == 0.5
    assert told[0]["figures"][0]["loss"] != told[1]["figures"][0]["loss"]
