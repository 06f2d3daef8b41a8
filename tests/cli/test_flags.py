"""Every option of every verb, as the parsers themselves list them, against what no option can mean."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from ccl import cli
from ccl.cli.parser import STEPS, Number, Parser, Whole, file_to_write, folder_to_write, path_of

NONSENSE = ("nan", "inf", "-inf", "1e400", "", "x", "\udcff")
# Of `ccl fit`, the page lists what LightningCLI parses, once torch is there.
VERBS = [verb for verb in cli.VERBS if verb != "fit"]


class Found(BaseException):
    """Carries a verb's parser out of it, past all that would catch an error."""


def parser_of(verb: str, monkeypatch: pytest.MonkeyPatch) -> Parser:
    def found(self: Parser, *_: Any) -> None:
        raise Found(self)

    with monkeypatch.context() as patched, pytest.raises(Found) as caught:
        patched.setattr(Parser, "parse_known_args", found)
        cli.run(verb.split())
    return caught.value.args[0]


def options_of(parser: Parser) -> Iterator[argparse.Action]:
    """Those that take a value of the user's own."""
    for action in parser._actions:
        if action.nargs != 0 and not action.choices:
            yield action


def slips(kind: Any) -> tuple[str, ...]:
    """What is no value of a type of numbers; texts and paths are only never empty or "--"."""
    if isinstance(kind, Whole):
        return (*NONSENSE, "1.5", str(kind.least - 1), str(kind.most + 1), "9" * 5000)
    if isinstance(kind, Number):
        beyond = kind.least if kind.above else kind.least - max(1, abs(kind.least))
        return (*NONSENSE, str(beyond), str(kind.most * 10), "9" * 5000)
    return () if kind.__name__ == "any_text" else ("",)


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_takes_nonsense(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told in one short sentence that names the option, with exit 2, whatever else is missing."""
    before: list[str] = []  # what comes first takes the first place
    for action in options_of(parser_of(verb, monkeypatch)):
        assert action.type not in (None, int, float, str, Path), f"{verb}: {action.dest} takes anything"
        flag = action.option_strings[-1] if action.option_strings else ""
        for slip in (*slips(action.type), *(["--"] if flag.startswith("--") else [])):
            several = [slip] * action.nargs if isinstance(action.nargs, int) else [slip]
            # After "=" a value may begin with a dash.
            argv = (
                [f"{flag}={slip}"]
                if flag.startswith("--") and len(several) == 1
                else [*([flag] if flag else before), *several]
            )
            with redirect_stderr(io.StringIO()) as told:
                status = cli.main([*verb.split(), *argv])
            said, name = told.getvalue(), flag or str(action.metavar or action.dest)
            assert status == 2 and said.count("\n") == 1 and len(said) < 500, (argv, said)
            assert name in said and "CCL_DEBUG" not in said, (argv, said)
        before += [] if flag else ["x"]


PATHS = {path_of, file_to_write, folder_to_write}


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 2500, "a\0b", "\ud800"])
def test_a_path_that_no_file_can_have_is_told_by_every_option_that_takes_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    for verb in VERBS:
        for action in options_of(parser_of(verb, monkeypatch)):
            if action.option_strings and getattr(action.type, "__name__", "") in (
                "path_of",
                "file_to_write",
                "folder_to_write",
            ):
                tried += 1
                assert cli.main([*verb.split(), action.option_strings[0], name]) == 2
                said = capsys.readouterr().err
                assert said.count("\n") == 1 and len(said) < 500
                assert "no file can have this name" in said or "longer than any file's" in said
    assert tried > 20


def test_a_folder_is_no_file_to_write_and_a_file_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["codec", "fit", "-o", str(tmp_path)]) == 2
    assert f"--out is {tmp_path}, a folder; a file is needed" in capsys.readouterr().err
    for verb in (["shards", "world"], ["shards", "make", "x"], ["testset"], ["evaluate", "--videos", "."]):
        assert cli.main([*verb, "-o", str(tmp_path / "file")]) == 2
        assert f"--out is {tmp_path / 'file'}, a file; a folder is needed" in capsys.readouterr().err


def test_a_solver_takes_as_many_steps_as_a_model_may_ask_for() -> None:
    from ccl.sampling import MOST

    assert STEPS.most == MOST


def test_what_may_be_imported_late_is_not_needed_to_refuse(tmp_path: Path) -> None:
    """One process for all; torch would be there from the first of them that imports it."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    (tmp_path / "no.yaml").write_text("a: [\n")
    cases = {
        "plan --config no.yaml": "no.yaml, line 2 is not YAML",
        "plan --config joint.yaml --gpus 0": "--gpus is 0; it must be a whole number",
        "plan --config joint.yaml --gpu h1000": "there is no 'h1000' (did you mean 'h100'?)",
        "generate --prompts nowhere.jsonl -o out": "there is no --prompts file nowhere.jsonl",
        "generate --prompt x -o .": "-o is ., a folder; a clip is a file",
        "generate --prompt x -o folder.mp4": "-o is folder.mp4, a folder; a clip is a file",
        "evaluate --videos clips --metrics nope": "there is no metric 'nope'",
        "shards encode latents -o out --text UMT6": "there is no class 'UMT6' (did you mean 'UMT5'?)",
        "shards encode latents -o out --video-codec Wan": "there is no class 'Wan'",
    }
    (tmp_path / "joint.yaml").write_text("trainer: {}\n")
    code = (
        "import sys; from ccl.cli import main\n"
        f"for argv in {list(cases)!r}: print(main(argv.split()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines() == ["2 False"] * len(cases), done.stderr
    for said, wanted in zip(done.stderr.splitlines(), cases.values(), strict=True):
        assert wanted in said
