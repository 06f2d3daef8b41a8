"""Parts of one's own from outside of the package, and the sentences for those that are not there."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ccl import cli
from ccl.cli.errors import UsageError, compose, explain, read_yaml
from ccl.cli.own import reachable
from helpers import ROOT

JOINT = ROOT / "configs" / "joint.yaml"
PART = "class_path: {}\ninit_args: {}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder beside the working directory with an interaction of one's own in it."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "here").mkdir()
    source = "from ccl.interaction import NoInteraction\nclass Mine(NoInteraction):\n    pass\n"
    (tmp_path / "beside" / "module_of_mine.py").write_text(source)
    (tmp_path / "beside" / "over.yaml").write_text("model: {net: {init_args: {interaction: part.yaml}}}\n")
    (tmp_path / "beside" / "part.yaml").write_text("class_path: module_of_mine.Mine\n")
    monkeypatch.chdir(tmp_path / "here")
    for name in ("module_of_mine", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "beside"


def fit(overlay: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """What `ccl fit --print_config` prints and says of an overlay."""
    with suppress(SystemExit):
        cli.main(["fit", "--config", str(JOINT), "--config", str(overlay), *more, "--print_config"])
    done = capsys.readouterr()
    return done.out, done.err


def test_a_class_beside_the_yaml_is_found_and_the_path_is_left_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(sys.path)
    assert "module_of_mine.Mine" in fit(folder / "over.yaml", capsys)[0]
    assert sys.path == before


def test_a_class_in_the_working_directory_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with reachable([], ["--model.net.init_args.interaction.class_path", "module_of_mine.Mine"]):
        assert "module_of_mine" in sys.modules


@pytest.mark.parametrize(
    ("node", "what"),
    [
        (PART.format("nowhere_at_all.Mine", "{}"), "there is no module 'nowhere_at_all' for nowhere_at_all.Mine"),
        (PART.format("module_of_mine.Mien", "{}"), "has no 'Mien' (did you mean 'Mine'?)"),
        (PART.format("broken.Mine", "{}"), "broken cannot be imported: broken.py, line 2: NameError: name 'nothing'"),
        (PART.format("needy.Mine", "{}"), "needy needs the module 'not_installed_here', which is not installed"),
        (PART.format("../x.Mine", "{}"), "is no name of a class"),
        ("class_path: part.yaml\ninteraction: part.yaml\n", "leads to itself"),
    ],
)
def test_a_class_that_is_not_there_is_named_with_its_line(folder: Path, node: str, what: str) -> None:
    (folder / "broken.py").write_text("x = 1\nnothing\n")
    (folder / "needy.py").write_text("import not_installed_here\n")
    (folder / "part.yaml").write_text(node)
    with pytest.raises(UsageError) as caught, reachable([folder / "over.yaml"]):
        pass
    assert str(caught.value).startswith(str(folder / "part.yaml"))
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("node", "what"),
    [
        ("class_path: json.JSONDecoder\n", "to be a subclass of"),
        ("class_path: ccl.interaction.CCA\ninit_args: {num_context: 3}\n", "num_context' in {part}, line 2"),
        ("class_path: ccl.interaction.CCA\ninit_args: {rotate: perhaps}\n", "rotate in {part}, line 2: it must be"),
    ],
)
def test_what_is_wrong_in_a_part_file_is_said_and_not_that_it_was_read_twice(
    folder: Path, capsys: pytest.CaptureFixture[str], node: str, what: str
) -> None:
    (folder / "part.yaml").write_text(node)
    said = fit(folder / "over.yaml", capsys)[1]
    assert "loop" not in said
    assert what.format(part="part.yaml") in said.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Group 'model' does not accept option 'optimiser.lr'",
            "'model.optimiser' in o.yaml, line 1 {like}'optimizer'?)",
        ),
        ("Option 'modell.net.x' is not accepted", "'modell' {like}'model'?)"),
        ("Unrecognized arguments: --model.optimiser.lr", "'--model.optimiser.lr' {like}'--model.optimizer.lr'?)"),
    ],
)
def test_the_word_that_is_wrong_is_compared_with_those_beside_it(tmp_path: Path, message: str, said: str) -> None:
    (tmp_path / "o.yaml").write_text("model: {optimiser: {lr: 3}}\n")
    options = ["model.lora", "model.lr", "model.optimizer", "model.optimizer.lr", "model.net"]
    found = explain(message, options, [tmp_path / "o.yaml"], []).replace(f"{tmp_path}/", "")
    assert said.format(like="(did you mean ") in found


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"x: 1\nname: caf\xe9\n", ", line 2 is not UTF-8 text"),
        (b"x: [1\n", "is not YAML"),
        (b"a: \x07\n", "is not YAML"),
        (b"x: 1\ny: [2, {z: \"\\ud800\"}]\n", ", line 2 holds half a character, \\ud800"),
        (b"x: 1\n\"a\\0\": 2\n", ", line 2 holds a NUL character"),
        (b"? [a]\n: 1\n", "is not YAML"),
        (b"a: !!python/object/apply:os.system [ls]\n", "is not YAML"),
        (b"- 1\n", "holds no keys"),
        (b"[" * 5000, "is nested too deeply"),
        (b"a: &a [*a]\n", "once its aliases are written out"),
        (b"a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
         + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 9)),
         "once its aliases are written out"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "o.yaml").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_yaml(tmp_path / "o.yaml")
    assert str(caught.value).startswith(str(tmp_path / "o.yaml")) and what in str(caught.value)


@pytest.mark.parametrize("name", ["none.yaml", "a\0b.yaml", "x" * 5000 + ".yaml"])
def test_a_name_that_no_file_has_is_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="there is no config file"):
        compose(tmp_path / name)


def test_shards_are_encoded_by_a_class_of_ones_own_in_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    source = "from ccl.codecs import EmbeddedVideo\nclass Video(EmbeddedVideo):\n    pass\n"
    (folder / "codec_of_mine.py").write_text(source)
    monkeypatch.delitem(sys.modules, "codec_of_mine", raising=False)
    small = ["--frames", "5", "--height", "16", "--width", "16", "--clips", "1", "--workers", "0"]
    assert cli.main(["shards", "world", "-o", "clips", *small]) == 0
    encode = ["shards", "encode", "clips", "-o", "latents", "--no-text"]
    assert cli.main([*encode, "--video-codec", "codec_of_mine.Vidoe"]) == 2
    assert "has no 'Vidoe' (did you mean 'Video'?)" in capsys.readouterr().err
    assert cli.main([*encode, "--video-codec", "codec_of_mine.Video"]) == 0
    assert (folder / "latents" / "index.json").is_file()
