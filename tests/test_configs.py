"""Every YAML parses and builds; the paper's stage 2 is what its files add up to, leaf by leaf."""

from __future__ import annotations

import inspect
import math
import pkgutil
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningCLI

from ccl.cli.errors import UsageError
from ccl.cli.fit import FitCLI, resolve
from ccl.cli.parts import build
from ccl.grid import Grid
from ccl.interaction import TARP, Interaction, Site
from ccl.storage.run import leaves
from ccl.tasks import PAPER_TASKS, Task, terms_of
from ccl.types import AV, OPEN, Route
from ccl.weights.catalogue import TABLE
from ccl.weights.find import classes, missing

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
GOLDEN = Path(__file__).parent / "golden" / "stage2.yaml"
STAGE2 = ("joint.yaml", "model/wan14b.yaml", "data/shards.yaml", "trainer/stage2.yaml", "trainer/fsdp.yaml")
OVERLAYS = sorted(
    f"{kind}/{p.name}" for kind in ("model", "data", "trainer", "world") for p in (CONFIGS / kind).iterdir()
)

# Leaves of the paper's stack that are the embedded default's own value, and are meant to be. Whatever else survives
# from joint.yaml into the stack is an override that was forgotten.
SHARED = {
    "runs_dir", "seed_everything", "ckpt_path", "checkpoint_every", "preview_every", "task_per",
    "grid.sample_rate", "grid.latent_rate", "grid.stride_time", "grid.stride_space", "grid.patch",  # MMAudio, Wan
    "grid.audio_latents",
    "codec.video.init_args.channels",  # 16, as in Wan's VAE
    "sampling.guidance.class_path", "sampling.guidance.init_args.scale.*",  # the paper gives no strength
    "model.net.class_path", "model.net.init_args.*.class_path", "model.net.init_args.*.init_args.channels",
    "model.net.init_args.*.init_args.layers", "model.net.init_args.*.init_args.head_dim",
    "model.net.init_args.freq_dim", "model.net.init_args.patch", "model.net.init_args.attention",
    "model.net.init_args.rescale",
    "model.net.init_args.interaction.*",  # but for the centre and n_v, which are asserted below
    "model.tasks.*",  # the paper's five tasks
    "model.time.class_path", "model.time.init_args.mean", "model.time.init_args.std",
    "model.optimizer.eps", "model.optimizer.weight_decay", "model.optimizer.decay_steps", "model.optimizer.fused",
    "model.optimizer.bits",
    "model.text_dropout", "model.loss_weights", "model.seed", "model.pretrained",
    "model.freeze", "model.lora", "model.quantize", "model.image", "model.reduce", "model.bins",
    "data.init_args.seed", "data.init_args.val_shards",
    "trainer.gradient_clip_val", "trainer.gradient_clip_algorithm", "trainer.log_every_n_steps",
    "trainer.max_epochs", "trainer.check_val_every_n_epoch", "trainer.num_sanity_val_steps",
    "trainer.callbacks.TaskRouter.*", "trainer.callbacks.Throughput.*", "trainer.callbacks.LossLog.*",
    "trainer.callbacks.Monitor.*", "trainer.callbacks.EMA.class_path", "trainer.callbacks.EMA.init_args.warmup",
    "trainer.callbacks.SaveCheckpoint.class_path", "trainer.callbacks.SaveCheckpoint.init_args.keep",
}  # fmt: skip


@cache
def resolved(*files: str) -> dict[str, Any]:
    """The stack of these files, as plain values."""
    return resolve([arg for file in files for arg in ("--config", str(CONFIGS / file))])


def flat(config: dict[str, Any]) -> dict[str, Any]:
    return dict(leaves(config))


def spelled(file: Path) -> set[str]:
    """Dotted keys that a YAML file and its part files spell."""

    def expand(node: Any) -> Any:
        if isinstance(node, dict):
            return {key.removesuffix("+"): expand(value) for key, value in node.items()}  # of a list that is added to
        if isinstance(node, list):
            return [expand(value) for value in node]
        if isinstance(node, str) and node.endswith(".yaml"):
            return expand(yaml.safe_load((file.parent / node).read_text()))
        return node

    return set(flat(expand(yaml.safe_load(file.read_text()))))


def matches(key: str, patterns: set[str]) -> bool:
    return any(re.fullmatch(re.escape(p).replace(r"\*", ".*"), key) for p in patterns)


# The paper's stage 2


def test_stage2_is_what_the_committed_file_says_leaf_by_leaf() -> None:
    found, golden = flat(resolved(*STAGE2)), flat(yaml.safe_load(GOLDEN.read_text()))
    differing = {key: (golden.get(key, "absent"), found.get(key, "absent")) for key in golden.keys() | found.keys()}
    assert {key: pair for key, pair in differing.items() if pair[0] != pair[1]} == {}


def test_stage2_has_the_papers_numbers() -> None:
    config = resolved(*STAGE2)
    net, trainer = config["model"]["net"]["init_args"], config["trainer"]
    assert (config["model"]["optimizer"]["lr_cross"], config["model"]["optimizer"]["lr"]) == (1e-4, 1e-5)
    assert trainer["max_steps"] == 12_000
    cca = net["interaction"]["init_args"]
    assert (cca["num_context_audio"], cca["num_context_video"]) == (8, 128)
    assert cca["align"]["init_args"]["centre"] == "paper"
    assert (config["grid"]["height"], config["grid"]["width"]) == (352, 640)
    assert (config["grid"]["frames"], config["grid"]["fps"]) == (81, 16.0)
    video, audio = (net[stream]["init_args"] for stream in ("video", "audio"))
    assert (net["layers"], video["width"], video["ffn"], audio["width"]) == (40, 5120, 13824, 1536)
    assert trainer["precision"] == "bf16-mixed"
    assert trainer["strategy"]["class_path"].endswith("ModelParallelStrategy")


def test_stage2_has_a_global_batch_of_320() -> None:
    config = resolved(*STAGE2)
    trainer = config["trainer"]
    factors = (
        config["data"]["init_args"]["batch_size"],
        trainer["devices"],
        trainer["num_nodes"],
        trainer["accumulate_grad_batches"],
    )
    assert math.prod(factors) == 320


def test_stage2_shards_over_every_device() -> None:
    trainer = resolved(*STAGE2)["trainer"]
    strategy = trainer["strategy"]["init_args"]
    assert (
        strategy["data_parallel_size"] * strategy["tensor_parallel_size"] == trainer["devices"] * trainer["num_nodes"]
    )


def test_stage2_trains_the_papers_five_tasks() -> None:
    rows = resolved(*STAGE2)["model"]["tasks"]
    assert build(dict[str, Task], rows, "tasks") == PAPER_TASKS


def global_batch(*files: str) -> int:
    config = resolved(*files)
    trainer = config["trainer"]
    parts = (trainer["devices"], trainer["num_nodes"], trainer["accumulate_grad_batches"])
    return math.prod((config["data"]["init_args"]["batch_size"], *parts))


def test_stage1_is_the_audio_stream_alone_with_the_papers_numbers() -> None:
    config = resolved(*STAGE2, "audio.yaml")
    net = config["model"]["net"]["init_args"]
    assert net["video"] is None and net["audio"]["init_args"]["width"] == 1536
    assert net["interaction"]["class_path"].endswith("NoInteraction")
    assert set(config["model"]["tasks"]) == {"audio"}
    assert (config["model"]["optimizer"]["lr"], config["trainer"]["max_steps"]) == (1e-4, 160_000)
    assert global_batch(*STAGE2, "audio.yaml") == 3200
    node = config["model"]["net"]
    with torch.device("meta"):
        built = instantiate(pkgutil.resolve_name(node["class_path"]), node)
    assert sum(p.numel() for p in built.parameters()) == 1_883_268_628  # the audio stream of stage 2


def test_the_ablations_are_stage2_but_for_their_length_and_batch() -> None:
    config, stage2 = flat(resolved(*STAGE2, "trainer/ablation.yaml")), flat(resolved(*STAGE2))
    differing = {key for key in stage2 if config[key] != stage2[key]}
    wanted = {"name", "trainer.max_steps", "trainer.accumulate_grad_batches", "trainer.val_check_interval"}
    assert differing == wanted
    assert (config["trainer.max_steps"], global_batch(*STAGE2, "trainer/ablation.yaml")) == (6000, 128)


def survivors(*files: str) -> set[str]:
    """Leaves that joint.yaml spells, that a stack still has, and that are not meant to be shared."""
    stack, default = flat(resolved(*files)), flat(resolved("joint.yaml"))
    same = {key for key in spelled(CONFIGS / "joint.yaml") if key in stack and stack[key] == default[key]}
    return {key for key in same if not matches(key, SHARED)}


def test_nothing_of_the_embedded_default_survives_in_stage2_by_oversight() -> None:
    assert survivors(*STAGE2) == set()


def test_a_forgotten_override_is_caught() -> None:
    """The guard itself: without stage2.yaml, the embedded default's rates and steps would survive."""
    survived = survivors(*(file for file in STAGE2 if file != "trainer/stage2.yaml"))
    assert {"model.optimizer.lr", "model.optimizer.lr_cross", "trainer.max_steps", "trainer.precision"} <= survived


def test_weights_that_are_not_here_are_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence with every name, where the config has it, and the command that fetches all."""
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path), Path("runs").mkdir()
    monkeypatch.setattr(LightningCLI, "instantiate_classes", lambda self: pytest.fail("was built"))
    argv = [arg for file in STAGE2 for arg in ("--config", str(CONFIGS / file))]
    with pytest.raises(UsageError) as told:
        FitCLI([*argv, "--model.pretrained.video", "wan2.1-i2v-14b", "--model.pretrained.audio", "runs/none"])
    words = str(told.value)
    assert "wan2.1-t2v-14b (model.text.init_args.path and codec.video.init_args.path)" in words
    assert "mmaudio-best-netg (codec.audio.init_args.vocoder)" in words
    assert "runs/none (model.pretrained.audio)" in words
    assert "`ccl weights fetch wan2.1-t2v-14b mmaudio-v1-16 mmaudio-best-netg wan2.1-i2v-14b` fetches" in words
    assert "\n" not in words and str(tmp_path) not in words


def test_weights_that_are_here_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = resolved(*STAGE2)
    for name in ("wan2.1-t2v-14b", "v1-16.pth"):
        (tmp_path / name).mkdir()
    assert "best-netg" in missing(config) and "wan2.1" not in missing(config) and "v1-16" not in missing(config)
    (tmp_path / "best_netG.pt").touch()
    assert missing(config) == ""


def test_no_config_names_a_place_on_a_machine() -> None:
    for file in sorted(CONFIGS.rglob("*.yaml")):
        for path, cls, args in classes(yaml.safe_load(file.read_text())):
            named = [args[name] for name in getattr(cls, "sources", ()) if args[name] is not None]
            assert set(named) <= set(TABLE), f"{file.relative_to(ROOT)}, {path}"


# What is asked for at the top


def test_what_is_asked_for_at_the_top_reaches_the_callbacks() -> None:
    joint = ["--config", str(CONFIGS / "joint.yaml")]

    def asked(*more: str) -> tuple[Any, ...]:
        config = flat(resolve([*joint, *more]))
        names = ("SaveCheckpoint.init_args.every", "Preview.init_args.every", "Preview.init_args.prompts")
        return tuple(config[f"trainer.callbacks.{name}"] for name in names)

    prompts = yaml.safe_load((CONFIGS / "joint.yaml").read_text())["preview_prompts"]
    assert asked() == (100, 200, prompts) and len(prompts) == 2
    assert asked("--checkpoint_every", "7", "--preview_every=9", "--preview_prompts", "a bell: loud") == (
        *(7, 9),
        ["a bell: loud"],
    )
    assert asked("--preview_prompts", '["a", "b"]')[2] == ["a", "b"]
    assert flat(resolve([*joint, "--task_per", "sample"]))["trainer.callbacks.TaskRouter.init_args.per"] == "sample"
    assert asked("--config", str(CONFIGS / "data" / "shards.yaml"))[2] is None  # captions of the shards
    without = [*joint, "--config", str(CONFIGS / "trainer" / "checkpoint.yaml")]
    assert resolve(without)["preview_prompts"] == prompts
    with pytest.raises(UsageError, match=r"--preview_every asks for a Preview, and trainer\.callbacks hold none"):
        resolve([*without, "--preview_every", "3"])


def test_stage_2_begins_from_the_streams_that_ship_and_own_clips_from_nothing() -> None:
    world, own = resolved("joint.yaml"), resolved("joint.yaml", "data/shards.yaml", "trainer/scratch.yaml")
    rates = world["model"]["optimizer"]
    assert rates["lr_cross"] == pytest.approx(10 * rates["lr"])  # the paper's ratio
    assert world["model"]["freeze"] == "text" and missing(world) == ""
    assert own["model"]["pretrained"] is None and own["model"]["freeze"] is None
    assert own["data"]["init_args"]["batch_size"] == world["data"]["init_args"]["batch_size"]
    both = "world/both.yaml"
    for stream, *files in (
        ("video", "world/video.yaml", "world/video_more.yaml"), ("audio", "world/audio.yaml", "world/audio_more.yaml"),
        ("video", both), ("audio", both),
    ):  # fmt: skip
        alone = resolved("joint.yaml", *files)["model"]
        given, kept = (model["net"]["init_args"] for model in (alone, world["model"]))
        assert given[stream] == kept[stream] and alone["text"] == world["model"]["text"]
    lora = ("joint.yaml", "model/wan1_3b.yaml", "data/shards.yaml", "trainer/lora.yaml")
    assert global_batch(*lora) == 16 and resolved(*lora)["data"]["init_args"]["batch_size"] == 1


# Every file


def test_a_part_file_spells_every_argument() -> None:
    """Swapping a class keeps same-named arguments of the one before, so a silent default would be another's value."""
    for file in sorted(CONFIGS.rglob("*.yaml")):
        for path, cls, args in classes(yaml.safe_load(file.read_text())):
            if not cls.__module__.startswith("ccl."):
                continue
            parameters = inspect.signature(cls.__init__).parameters.values()
            wanted = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            # What the parser links and what the model supplies.
            left_out = wanted - {"self", "site", "grid", "codec"} - set(args)
            assert left_out == set(), f"{file.relative_to(ROOT)}, {path or 'the part'}"


@pytest.mark.parametrize("file", [*OVERLAYS, "audio.yaml"])
def test_an_overlay_resolves_over_the_embedded_default(file: str) -> None:
    keys = spelled(CONFIGS / file)
    found = flat(resolved("joint.yaml", file))
    assert {key for key in keys if key not in found} == set()


@pytest.mark.parametrize("file", sorted(file.stem for file in (CONFIGS / "model").iterdir()))
def test_a_model_overlay_builds_on_the_meta_device(file: str) -> None:
    node = resolved("joint.yaml", f"model/{file}.yaml")["model"]["net"]
    with torch.device("meta"):
        net = instantiate(pkgutil.resolve_name(node["class_path"]), node)
    assert len(net.blocks) == node["init_args"]["layers"]
    assert all(parameter.is_meta for parameter in net.parameters())


@pytest.mark.parametrize("file", sorted((CONFIGS / "interaction").iterdir()), ids=lambda file: file.stem)
def test_an_interaction_part_builds(file: Path) -> None:
    make = build(Callable[[Site], Interaction], yaml.safe_load(file.read_text()), file.name)
    assert isinstance(make(Site(64, 32, AV(16, 8))), Interaction)


@pytest.mark.parametrize("file", sorted((CONFIGS / "tasks").iterdir()), ids=lambda file: file.stem)
def test_a_tasks_part_is_a_table_of_tasks(file: Path) -> None:
    tasks = build(dict[str, Task], yaml.safe_load(file.read_text()), file.name)
    assert sum(task.prob for task in tasks.values()) == pytest.approx(1)
    assert set(terms_of(tasks)) >= set(tasks)


def tasks_of(name: str) -> dict[str, Task]:
    return build(dict[str, Task], yaml.safe_load((CONFIGS / "tasks" / f"{name}.yaml").read_text()), name)


def test_harmonys_step_trains_both_streams_and_each_driven_by_the_other_on_the_same_clips() -> None:
    (task,) = tasks_of("harmony").values()
    joint, a2v, v2a = task.terms
    assert [term.weights for term in task.terms] == [AV(1, 1), AV(1, 0), AV(0, 1)]
    assert [term.whole for term in task.terms] == [AV(False, False), AV(False, True), AV(True, False)]
    assert (joint.route, a2v.route, v2a.route) == (OPEN, Route(True, False), Route(False, True))


def test_uniavgens_tasks_are_in_the_papers_proportion() -> None:
    shares = {name: task.prob for name, task in tasks_of("uniavgen").items()}
    assert shares == {"joint": 0.4, "voice": 0.1, "continuation": 0.1, "v2a": 0.2, "a2v": 0.2}


def test_the_embedded_default_is_complete() -> None:
    """What joint.yaml does not spell of its own classes would be a default that an overlay cannot be compared with."""
    config = resolved("joint.yaml")
    own = set(flat({key: value for key, value in config.items() if key not in ("trainer", "ckpt_path")}))
    assert own - spelled(CONFIGS / "joint.yaml") == set()


def test_the_paper_and_the_embedded_interaction_differ_only_where_they_say() -> None:
    files = (CONFIGS / "interaction" / name for name in ("cca.yaml", "cca_embedded.yaml"))
    paper, embedded = (flat(yaml.safe_load(file.read_text())) for file in files)
    differing = {key for key in paper if paper[key] != embedded[key]}
    assert differing == {"init_args.align.init_args.centre", "init_args.num_context_video"}
    assert TARP(embedded["init_args.align.init_args.centre"]).report(Grid()).unattended == ()


def instantiate(base: type, node: dict[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "part")
    return parser.instantiate_classes(parser.parse_object({"part": node})).part


if __name__ == "__main__":  # writes the golden file anew, its header kept
    header = [line for line in GOLDEN.read_text().splitlines() if line.startswith("#")]
    GOLDEN.write_text("\n".join(header) + "\n" + yaml.safe_dump(resolved(*STAGE2), sort_keys=False))
