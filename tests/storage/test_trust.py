"""What comes from somebody else names classes of ccl alone, of the kind that stands there, and nothing is imported
before that is known."""

from __future__ import annotations

import builtins
import copy
import shutil
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ccl
from ccl import cli
from ccl.codecs import EmbeddedAudio
from ccl.files import FileError
from ccl.files.yamltext import read_yaml
from ccl.grid import Grid
from ccl.interaction import CCA, TARP, Global, Site
from ccl.model import DualStreamTransformer
from ccl.model.stream import WanStream
from ccl.storage.model_folder import export, load_model, save_model
from ccl.storage.trust import Trust, on_path
from ccl.text import UMT5, EmbeddedText
from ccl.types import AV
from helpers.tiny import run_folder, tiny_config, tiny_state

PLANTED = "from pathlib import Path\nPath({marker!r}).write_text('imported')\ndef run(*args, **kwargs): pass\n"
FUSION = """
from ccl.interaction import CCA, NoInteraction
class Fusion(CCA):
    def __init__(self, widths, align, *, strength: float = 1.0, **rest):
        super().__init__(widths, align, **rest)
class Other: pass
def make(widths): return NoInteraction(widths)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust") / "model"
    save_model(folder, tiny_config(), tiny_state())
    return folder


@pytest.fixture
def hostile(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, Path]]:
    """A model folder whose config was changed, and a file that must not come to be; a planted module can be found."""
    marker = tmp_path / "marker"
    (tmp_path / "planted.py").write_text(PLANTED.format(marker=str(marker)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "planted", raising=False)

    def make(key: str, node: Any, text: str | None = None) -> tuple[Path, Path]:
        folder = tmp_path / "model"
        shutil.copytree(saved, folder, dirs_exist_ok=True)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        *path, last = key.split(".")
        place = config
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[last] = node
        dumped = yaml.safe_dump(config) if text is None else text
        (folder / "config.yaml").write_text(dumped.replace("MARKER", str(marker)))
        return folder, marker

    return make


def part(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


TOUCH = "touch MARKER"
INTERACTION = "net.init_args.interaction"
PICTURES = "codec.init_args.video"
SOUNDS = "codec.init_args.audio.init_args"
HOSTILE = [
    # Functions where a factory or a class stands.
    (INTERACTION, part("os.system", command=TOUCH)),
    (INTERACTION, part("posix.system", command=TOUCH)),
    (INTERACTION, part("subprocess.Popen", args=["touch", "MARKER"])),
    (INTERACTION, part("subprocess.check_output", args=["touch", "MARKER"])),
    (INTERACTION, part("builtins.eval", source="open('MARKER', 'w')")),
    (INTERACTION, part("builtins.open", file="MARKER", mode="w")),
    (INTERACTION, part("runpy.run_path", path_name="planted.py")),
    (INTERACTION, part("runpy.run_module", mod_name="planted")),
    (INTERACTION, part("os.remove", path="config.yaml")),
    (INTERACTION, part("os.mkdir", path="MARKER")),
    (INTERACTION, part("shutil.rmtree", path=".")),
    (INTERACTION, part("pathlib.Path.unlink")),
    (INTERACTION, part("importlib.import_module", name="planted")),
    (INTERACTION, part("torch.load", f="MARKER", weights_only=False)),
    (INTERACTION, part("functools.partial", func="os.system")),
    (INTERACTION, part("planted.run")),
    (INTERACTION, "os.system"),
    (INTERACTION, "planted.run"),
    (INTERACTION, "planted.yaml"),
    (INTERACTION, {"class_path": ["os.system"]}),
    (INTERACTION, {"class_path": "ccl.interaction.CCA", "dict_kwargs": {"align": part("planted.run")}}),
    (INTERACTION, {"class_path": "CCA"}),
    # What is ccl's own, and no class of that kind.
    (INTERACTION, part("ccl.cli.main", argv=["fit"])),
    (INTERACTION, part("ccl.cli.main.main", argv=["fit"])),
    (INTERACTION, part("ccl.__main__.main")),
    (INTERACTION, part("ccl.files.write_whole", path="MARKER", content="x")),
    (INTERACTION, part("ccl.files.whole.os.system", command=TOUCH)),
    (INTERACTION, part("ccl.storage.model_folder.shutil.rmtree", path=".")),
    (INTERACTION, part("ccl.files.whole.Path")),
    (INTERACTION, part("ccl.guidance.UCG2")),
    (INTERACTION, part("ccl.interaction.TARP")),
    (INTERACTION, part("ccl.interaction.Interaction.forward")),
    (INTERACTION, part("ccl..interaction.CCA")),
    (INTERACTION, part("ccl.nowhere.CCA")),
    (f"{INTERACTION}.init_args.widths", part("planted.run")),
    (f"{INTERACTION}.init_args.align", part("planted.run")),
    (f"{INTERACTION}.init_args.align", "planted.run"),
    (f"{INTERACTION}.init_args.align.class_path", "os.system"),
    (f"{INTERACTION}.init_args.num_context_video", part("planted.run")),
    (f"{INTERACTION}.init_args.align.class_path", "ccl.interaction.CCA"),
    ("net.init_args.interaction.class_path", "planted.run"),
    # Everywhere else.
    ("net", part("planted.run")),
    ("net", "planted.run"),
    ("net", [part("planted.run")]),
    ("net.init_args.layers", part("planted.run")),
    ("net.init_args.video", part("planted.run")),
    ("net.init_args.video", "planted.yaml"),
    ("net.init_args.video.width", part("planted.run")),
    ("net.init_args.interaction.class_path", "planted.run"),
    ("net.init_args", {"interaction.class_path": "planted.run"}),
    ("text", part("planted.run")),
    ("text", "planted.run"),
    ("text.init_args.dim", [part("planted.run")]),
    ("image", part("planted.run")),
    ("image", part("ccl.image.clip.CLIPImage", path=part("planted.run"))),
    ("codec", part("planted.run")),
    (PICTURES, part("planted.run")),
    ("codec.init_args.audio", part("os.system", command=TOUCH)),
    ("codec.init_args.audio.class_path", "ccl.codecs.EmbeddedVideo"),
    ("grid", part("planted.run")),
    ("grid.frames", part("planted.run")),
    ("grid", [part("planted.run")]),
    ("sampling", part("planted.run")),
    ("sampling.guidance", part("planted.run")),
    ("sampling.guidance", "planted.run"),
    ("sampling.guidance", part("ccl.interaction.CCA")),
    ("sampling.guidance.init_args.scale", part("planted.run")),
    ("sampling.guidance.init_args.scale.video", part("planted.run")),
    ("sampling.solver", part("planted.run")),
    ("another", part("planted.run")),
]


@pytest.mark.parametrize(("key", "node"), HOSTILE)
def test_nothing_that_a_config_names_runs_or_is_imported(
    key: str, node: Any, hostile: Callable[..., tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, marker = hostile(key, node)
    imported: list[str] = []
    whole = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: imported.append(name) or whole(name, *rest))
    with pytest.raises(FileError, match=r"model/config\.yaml") as told:
        ccl.load(str(folder))
    assert "planted" not in sys.modules and not any(name.startswith("planted") for name in imported)
    assert not marker.exists() and (folder / "config.yaml").is_file() and "\n" not in str(told.value)


def test_what_provenance_says_is_read_by_nobody(hostile: Callable[..., tuple[Path, Path]]) -> None:
    folder, marker = hostile("provenance.by", [{"deep": part("planted.run")}])
    assert ccl.load(str(folder)).provenance["by"] and not marker.exists() and "planted" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch MARKER']",
        "net: !!python/name:os.system\n",
        "x: &x {class_path: planted.run}\nnet: *x\ntext: *x\ncodec: *x\ngrid: {}\n",
        "net: {class_path: ccl.model.DualStreamTransformer, <<: {class_path: planted.run}, dict_kwargs: {}}\n"
        "text: 1\ncodec: 1\ngrid: 1\n",
    ],
)
def test_tags_and_aliases_run_nothing(text: str, hostile: Callable[..., tuple[Path, Path]]) -> None:
    folder, marker = hostile("net", None, text)
    with pytest.raises(FileError, match=r"model/config\.yaml"):
        ccl.load(str(folder))
    assert not marker.exists() and "planted" not in sys.modules


@pytest.mark.parametrize("verb", ["generate", "evaluate", "export"])
def test_every_verb_refuses_and_says_how_to_trust(
    verb: str, hostile: Callable[..., tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, marker = hostile(INTERACTION, part("planted.run"))
    argv = {
        "generate": ["--ckpt", str(folder), "--prompt", "a", "-o", "a.mp4"],
        "evaluate": ["--ckpt", str(folder), "--metrics", "mouth", "-o", "scores", "--limit", "1", "--steps", "1"],
        "export": [str(folder), "-o", "out"],
    }[verb]
    assert cli.main([verb, *argv]) in (1, 2)
    said = capsys.readouterr().err
    assert "config.yaml: net.init_args.interaction names 'planted.run'" in said and "--trust planted" in said
    assert not marker.exists() and not Path("out").exists()


def test_a_runs_config_is_as_little_trusted(
    tmp_path: Path, hostile: Callable[..., tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, marker = hostile("net", {})
    ckpt = run_folder(tmp_path, tiny_state())
    file = ckpt.parents[1] / "config.yaml"
    run = yaml.safe_load(file.read_text())
    run["model"]["net"]["init_args"]["interaction"] = part("planted.run")
    run["trainer"] = {"callbacks": [part("planted.run")]}  # which no model has
    file.write_text(yaml.safe_dump(run))
    for path in (ckpt, ckpt.parents[1]):
        with pytest.raises(FileError, match=r"net.init_args.interaction names 'planted.run'.*--trust planted"):
            load_model(path)
        with pytest.raises(FileError, match=r"--trust planted"):
            export(path, tmp_path / "out")
    assert not marker.exists() and "planted" not in sys.modules


@pytest.mark.parametrize("where", ["cwd", "folder"])
def test_a_module_of_ones_own_is_loaded_once_it_is_trusted(
    where: str, hostile: Callable[..., tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    align = {"class_path": "ccl.interaction.TARP"}
    folder, _ = hostile(INTERACTION, part("mine.Fusion", align=align, num_context_video=16, strength=2.0))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (Path() if where == "cwd" else folder).joinpath("mine.py").write_text(FUSION)
    before = list(sys.path)
    with pytest.raises(FileError, match=r"'mine.Fusion', which is no class of ccl.*: --trust mine$"):
        ccl.load(str(folder))
    assert "mine" not in sys.modules
    pipe = ccl.load(str(folder), trust=("mine",))
    assert type(pipe.net.blocks[0].interaction).__name__ == "Fusion" and sys.path == before
    argv = ["generate", "--ckpt", str(folder), "--trust", "mine", "--prompt", "a", "--steps", "1", "-o", "a.mp4"]
    assert cli.main(argv) == 0 and Path("a.mp4").is_file()
    monkeypatch.delitem(sys.modules, "mine")


@pytest.mark.parametrize(
    "node",
    [
        part("mine.Other"),
        part("mine.make"),
        "mine.make",
        part("mine.Fusion", align=part("os.system")),
        part("mine.Fusion", align=part("ccl.interaction.TARP"), own_projections=part("planted.run")),
        part("minefield.Fusion"),
    ],
)
def test_trust_is_for_that_modules_classes_of_the_right_kind(
    node: Any, hostile: Callable[..., tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = hostile(INTERACTION, node)
    Path("mine.py").write_text(FUSION)
    with pytest.raises(FileError, match=r"config\.yaml: net\.init_args\.interaction"):
        ccl.load(str(folder), trust=("mine",))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.parametrize("where", ["cwd", "folder"])
@pytest.mark.parametrize("module", ["ccl.needy", "needy"])
def test_a_package_that_is_not_installed_is_not_taken_from_a_models_folder(
    module: str,
    where: str,
    hostile: Callable[..., tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A module of ccl, or an installed one that is trusted, may try to import what it could use."""
    for name in ("extra", module):
        sys.modules.pop(name, None)
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "needy.py").write_text("try:\n    import extra\nexcept ImportError:\n    pass\n")
    folder, marker = hostile(INTERACTION, part(f"{module}.Fusion"))
    (Path() if where == "cwd" else folder).joinpath("extra.py").write_text(PLANTED.format(marker=str(marker)))
    usual = [entry for entry in sys.path if entry not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", [*usual, str(installed)])
    monkeypatch.setattr(ccl, "__path__", [*ccl.__path__, str(installed)])
    with pytest.raises(FileError, match=rf"{module} has no class of that name"):
        ccl.load(str(folder), trust=("needy",))
    assert not marker.exists() and module in sys.modules


def test_a_folder_that_is_on_the_path_keeps_its_place_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = [str(tmp_path), *sys.path]
    monkeypatch.setattr(sys, "path", list(before))
    with on_path([tmp_path]):
        pass
    assert sys.path == before


def test_what_may_be_anything_may_not_be_a_class_in_a_text() -> None:
    trust = Trust("c.yaml")
    trust.check("mel", Any, "key")
    for kind in (Any, Callable[[int], int], list[torch.nn.Module], str | torch.nn.Module, type[int]):
        with pytest.raises(FileError, match=r"^c\.yaml: key is"):
            trust.check("{class_path: os.system}", kind, "key")


# Bounds


def bombs() -> dict[str, str]:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    names = "abcdefghijklmnop"
    aliases = bomb + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in pairwise(names[:10]))
    merged = "a: &a {k0: 1}\n" + "".join(
        f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n" for old, new in pairwise(names[:10])
    )
    return {
        "aliases": aliases,
        "aliases in provenance": yaml.safe_dump(tiny_config()) + "provenance:\n  " + aliases.replace("\n", "\n  "),
        "merged keys": merged,
        "itself": "net: &a [*a]\ntext: *a\ncodec: *a\ngrid: *a\n",
        "deep": "net: " + "[" * 5000 + "]" * 5000,
        "a chain of aliases": "a0: &a0 x\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(5000)),
        "long": "net: [" + "1, " * 100_000 + "]",
        "a long number": "net: " + "9" * 100_000,
        "no text": "\udcff",
    }


@pytest.mark.parametrize("name", list(bombs()))
def test_yaml_that_would_not_end_is_told_in_a_moment(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(bombs()[name].encode(errors="surrogateescape"))
    start = time.process_time()
    with pytest.raises(FileError, match=r"config\.yaml") as told:
        config = read_yaml(file)
        load_model(file.parent) if config else None
    assert time.process_time() - start < 5 and len(str(told.value)) < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.init_args.layers", 1000),
        ("net.init_args.layers", 10**30),
        ("net.init_args.video.ffn", 10**11),
        ("net.init_args.interaction.init_args.num_context_video", 10**12),
        ("text.init_args.layers", 1000),
        ("text.init_args.buckets", 10**10),
        ("text.init_args.dim", 10**7),
    ],
)
def test_a_model_far_larger_than_its_weights_is_not_built(
    key: str, value: int, hostile: Callable[..., tuple[Path, Path]]
) -> None:
    folder, _ = hostile(key, value)
    start = time.process_time()
    with pytest.raises(ValueError, match=r"model/(config\.yaml|model\.safetensors)") as told:
        load_model(folder)
    assert time.process_time() - start < 10 and "\n" not in str(told.value)


def test_aliases_that_share_a_value_are_read(tmp_path: Path) -> None:
    scale = {"video": 2.0, "audio": 2.0}
    config = copy.deepcopy(tiny_config())
    config["sampling"]["guidance"] = part("ccl.guidance.UCG3", text=scale, modal=scale)
    save_model(tmp_path / "model", config, tiny_state())
    assert "*id" in (tmp_path / "model" / "config.yaml").read_text()
    assert load_model(tmp_path / "model").sampling.guidance.modal.video == 2.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sampling.guidance.init_args.scale.video", float("nan"), "the scale of video is nan"),
        ("sampling.guidance.init_args.scale.audio", float("inf"), "the scale of audio is inf"),
        ("sampling.shift", float("nan"), "sampling.shift is nan"),
        ("sampling.steps", 10**9, "sampling.steps is 1000000000"),
        (f"{SOUNDS}.iterations", 10**9, "iterations is 1000000000; it must be from 0 to 1000"),
        ("grid.fps", float("nan"), "grid.fps is nan"),
    ],
)
def test_a_number_that_makes_no_clip_is_told_before_one_is_made(
    key: str, value: float, said: str, hostile: Callable[..., tuple[Path, Path]]
) -> None:
    folder, _ = hostile(key, value)
    with pytest.raises(ValueError, match=rf"model\.safetensors: its config.yaml does not give a model: .*{said}"):
        load_model(folder)


SIZES = {"head_dim": 12, "text_dim": 16, "layers": 1}


@pytest.mark.parametrize(
    ("make", "given", "said"),
    [
        (Grid, {"fps": float("inf")}, "grid.fps is inf"),
        (Grid, {"fps": -25.0}, "grid.fps is -25"),
        (Grid, {"fps": 1e-300}, r"grid.fps is 1e-300, so that 77 frames last 7.7e\+301 s"),
        (Grid, {"fps": 5e-324}, "grid.fps is 5e-324"),
        (Grid, {"fps": 1e300}, r"77 frames at 1e\+300 fps has 0 audio tokens"),
        (
            Grid,
            {"frames": 4 * 10**9 + 1},
            "4000000001, of 48 x 48 pixels; a clip's pictures may take 8 GB",
        ),
        (Grid, {"frames": 4 * 10**30 + 1}, "grid.frames is 4"),
        (Grid, {"height": 16 * 10**9}, "16000000000 x 48 pixels"),
        (Grid, {"width": 16 * 10**9}, "48 x 16000000000 pixels"),
        (Grid, {"sample_rate": 0}, "grid.sample_rate is 0"),
        (Grid, {"sample_rate": 10**12}, "at 1000000000000 samples a second may take 1 GB"),
        (Grid, {"latent_rate": float("nan")}, "grid.latent_rate is nan"),
        (Grid, {"latent_rate": 1e12}, "grid.latent_rate is 1000000000000"),
        (Grid, {"stride_time": 0}, "grid.stride_time is 0"),
        (Grid, {"stride_space": -8}, "grid.stride_space is -8"),
        (Grid, {"patch": 0}, "grid.patch is 0"),
        (Grid, {"audio_latents": 10**9}, "grid.audio_latents is 1000000000"),
        (EmbeddedAudio, {"iterations": -1}, "the audio codec's iterations is -1"),
        (EmbeddedText, {"length": 10**9}, "text length is 1000000000; a prompt has from 2 to 65,536 states"),
        (EmbeddedText, {"heads": 0}, "text heads is 0"),
        (EmbeddedText, {"layers": -1}, "text layers is -1"),
        (EmbeddedText, {"frequencies": 0}, "text frequencies is 0"),
        (UMT5, {"path": "a", "tokenizer": "b", "length": 10**12}, "text length is 1000000000000"),
        (DualStreamTransformer, {**SIZES, "head_dim": 0}, "head_dim is 0"),
        (DualStreamTransformer, {**SIZES, "patch": -2}, "patch is -2"),
        (DualStreamTransformer, {**SIZES, "freq_dim": -2}, "freq_dim is -2"),
        (DualStreamTransformer, {**SIZES, "rescale": float("nan")}, "rescale is nan"),
        (TARP, {"rescale": float("inf")}, "rescale is inf"),
        (Global, {"rescale": 0.0}, "rescale is 0.0"),
        (CCA, {"num_context_audio": -1}, "num_context_audio is -1"),
    ],
)
def test_a_number_that_no_memory_holds_or_no_loop_ends_at_is_refused_by_its_name(
    make: Any, given: dict[str, Any], said: str
) -> None:
    if make is DualStreamTransformer:
        given = {"video": WanStream(48, 64, 16), "audio": None, **given}
    sizes = (Site(48, 24, AV(12, 12)), TARP()) if make is CCA else ()
    with pytest.raises(ValueError, match=said) as told:
        make(*sizes, **given)
    assert len(str(told.value)) < 300
