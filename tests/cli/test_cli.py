"""The command line: instant help, one sentence for whatever is wrong, exit codes that mean something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccl import cli
from ccl.cli.errors import UsageError, explain, locate, one_sentence
from ccl.cli.parser import Parser
from ccl.cli.rules import check_guidance
from ccl.spelling import counted, did_you_mean
from helpers import ROOT


def told(capsys: pytest.CaptureFixture[str], argv: list[str]) -> tuple[int, str]:
    """Exit status and what stderr says of a command line."""
    status = cli.main(argv)
    return status, capsys.readouterr().err


WINDOWS = """
import os, signal, sys
del os.fork, os.register_at_fork, os.nice, os.sysconf, signal.SIGUSR1
sys.modules["fcntl"] = None
from ccl import cli
sys.platform = "win32"
raise SystemExit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="what it takes away is not there")
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--version"], 0, "ccl "),
        (["generate", "--prompt", "a red ball", "-o", "ball.mp4"], 2, "in WSL2 all is as on Linux: `wsl --install`"),
    ],
)
def test_where_the_system_is_windows_a_verb_says_what_to_use(words: list[str], status: int, said: str) -> None:
    """With what Windows does not have taken away, for there is no Windows here."""
    done = subprocess.run([sys.executable, "-c", WINDOWS, *words], capture_output=True, text=True)
    assert done.returncode == status and said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_help_takes_half_a_second_of_a_processor() -> None:
    script = Path(sys.executable).with_name("ccl")
    taken = []
    for _ in range(3):  # the least of three: other tests share the machine's caches
        child = subprocess.Popen([script, "--help"], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)  # so that nobody waits for it again
        child.stdout.close()
        assert child.returncode == 0
        taken.append(used.ru_utime + used.ru_stime)
    assert min(taken) < 0.5
    assert all(verb in said for verb in cli.VERBS)


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'lightning', 'jsonargparse'}"
    code = f"import sys, ccl.cli; ccl.cli.main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_wrong_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = told(capsys, ["genrate"])
    assert status == 2
    assert said == "ccl: there is no verb 'genrate' (did you mean 'generate'?); `ccl --help` lists them\n"


def test_half_a_verb_lists_its_other_half(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = told(capsys, ["shards", "mak"])
    assert status == 2
    verbs = ", ".join(f"shards {verb}" for verb in ("make", "caption", "world", "encode", "verify"))
    assert f"'shards mak' is not a whole verb; there are: {verbs}" in said


def test_a_wrong_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = told(capsys, ["shards", "make", "x", "-o", "y", "--caption", "z"])
    assert status == 2
    assert said.count("\n") == 1
    assert "there is no option '--caption' (did you mean '--captions'?)" in said


def test_a_flag_that_does_not_fit_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = told(capsys, ["shards", "make", "x", "-o", "y", "--frames", "80"])
    assert (status, said) == (2, "ccl: --frames is 80; the video codec needs 4k + 1 frames\n")


def test_a_missing_folder_is_one_sentence_and_exit_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, said = told(capsys, ["shards", "make", str(tmp_path / "none"), "-o", str(tmp_path / "out")])
    assert status == 1
    assert said == f"ccl: {tmp_path / 'none'} is not a folder\n"


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the verb `export` raise."""

    def verb(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr("ccl.cli.verbs.export", verb, raising=False)


def test_an_interrupt_is_a_line_and_exit_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    status, said = told(capsys, ["export"])
    assert (status, said) == (130, "\nccl: interrupted; what was already written is kept\n")


def test_an_unforeseen_error_is_a_line_that_says_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, RuntimeError("it broke"))
    status, said = told(capsys, ["export"])
    assert status == 1
    assert said.startswith("ccl: it broke (RuntimeError at test_cli.py:")
    assert said.endswith("CCL_DEBUG=1 shows the traceback)\n")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCL_DEBUG", "1")
    failing(monkeypatch, ValueError("it broke"))
    status, said = told(capsys, ["export"])
    assert status == 1
    assert said.startswith("Traceback")
    assert said.endswith("ccl: it broke\n")


def test_fit_without_a_config_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = told(capsys, ["fit"])
    assert status == 2
    assert "`ccl fit --config configs/joint.yaml` trains the embedded default" in said


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([*verb.split(), "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: ccl {verb}" in said
    assert f"ccl {verb}" in said.split("examples:")[1]


def test_a_flag_is_never_guessed_from_a_prefix() -> None:
    parser = Parser("x", "y")
    parser.add_argument("--captions")
    with pytest.raises(UsageError, match="no option '--capt'"):
        parser.parse(["--capt", "z"])


def test_one_of_a_thing_is_one_thing() -> None:
    assert [counted(number, "clip") for number in (0, 1, 2, 1000)] == ["0 clips", "1 clip", "2 clips", "1,000 clips"]


def test_did_you_mean_is_silent_where_nothing_is_near() -> None:
    assert did_you_mean("zebra", ["max_steps"]) == ""


def test_a_key_is_found_in_the_part_file_that_holds_it(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("class_path: X\ninit_args:\n  algn: 3\n")
    (tmp_path / "whole.yaml").write_text("model:\n  net: {interaction: part.yaml}\n")
    path, place = locate("algn", [tmp_path / "whole.yaml"], [])
    assert path == "model.net.interaction.init_args.algn"
    assert place == f" in {tmp_path / 'part.yaml'}, line 3"


def test_a_key_is_found_where_it_is_written_with_dots_or_within_a_text(tmp_path: Path) -> None:
    """As jsonargparse takes both."""
    (whole := tmp_path / "whole.yaml").write_text("trainer: {callbacks: []}\ndata: {init_args: {shards: a}}\n")
    (over := tmp_path / "over.yaml").write_text(
        "data: '{init_args: {shards: b}}'\ntrainer.callbacks:\n  - {init_args.decay.x: 1}\n"
    )
    for key, path, line in (
        ("data.init_args.shards", "data.init_args.shards", 1),
        ("trainer.callbacks", "trainer.callbacks", 2),
        ("decay", "trainer.callbacks.0.init_args.decay", 3),
        ("x", "trainer.callbacks.0.init_args.decay.x", 3),
    ):
        assert locate(key, [whole, over], []) == (path, f" in {over}, line {line}")


def test_a_key_on_the_command_line_is_found_there() -> None:
    assert locate("layerz", [], ["--model.net.layerz=3"]) == ("model.net.layerz", " on the command line")


def test_a_parsers_complaint_becomes_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "o.yaml"
    file.write_text("trainer:\n  max_step: 3\n")
    said = explain("Group 'trainer' does not accept option 'max_step'", ["trainer.max_steps"], [file], [])
    assert said == f"there is no key 'trainer.max_step' in {file}, line 2 (did you mean 'max_steps'?)"


def test_a_missing_file_is_named_once() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("/nowhere/x.mp4").read_bytes()
    assert one_sentence(caught.value) == "/nowhere/x.mp4: No such file or directory"


def test_the_environment_is_left_alone() -> None:
    before = dict(os.environ)
    with pytest.raises(UsageError):
        cli.run(["nothing"])
    assert dict(os.environ) == before


def test_the_test_set_is_written_with_the_files_its_manifests_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccl.data.world.testset.TEST_PAIRS", 1)
    assert cli.main(["testset", "-o", str(tmp_path)]) == 0
    rows = [json.loads((tmp_path / f"{subset}.jsonl").read_text()) for subset in ("easy", "hard")]
    assert all((tmp_path / row[kind]).is_file() for row in rows for kind in ("image", "audio", "reference"))


def test_what_is_wrong_with_a_command_line_is_told_before_anything_large_is_imported(tmp_path: Path) -> None:
    """One process for all; what is large would be there from the first of them that imports it."""
    (tmp_path / "wrong.yaml").write_text("{class_path: ccl.guidance.UCG2, init_args: {x: 1}}")
    cases = [
        ("generate --prompt x -o x.mp4 --guidance ucg4", "there is no guidance 'ucg4' (did you mean 'ucg3'?); there"),
        ("generate --prompt x -o x.mp4 --guidance none.yaml", "there is no config file none.yaml"),
        ("generate --prompt x -o x.mp4 --guidance wrong.yaml", "there is no key 'init_args.x' in wrong.yaml, line 1"),
        ("generate --prompt x -o x.mp4 --scale nan 1", "--scale is nan; it must be a number"),
        ("generate --prompts x -o x --then y", "--then goes with --prompt; rows of --prompts have their own"),
        ("generate --prompt x --then . -o x.mp4 --ckpt nowhere", "there is no checkpoint nowhere"),
        ("generate --prompt x -o x.mp4 --ckpt nowhere", "there is no checkpoint nowhere"),
        ("evaluate --videos nowhere", "there is no folder of clips nowhere"),
        ("evaluate --ckpt nowhere", "there is no checkpoint nowhere"),
        ("evaluate --videos . --limitt 3", "there is no option '--limitt' (did you mean '--limit'?)"),
        ("export nowhere -o x", "there is no checkpoint nowhere"),
        ("export x", "the following arguments are required: -o/--out"),
        ("shards make nowhere -o x", "nowhere is not a folder"),
        ("shards encode nowhere -o x", "nowhere holds no index.json"),
        ("testset images --limitt 3", "there is no option '--limitt'"),
        ("fit", "fit needs a config"),
        ("fit --config nowhere.yaml", "there is no config file nowhere.yaml"),
    ]  # fmt: skip
    code = (
        "import sys; from ccl.cli import main\n"
        f"for argv in {[argv for argv, _ in cases]!r}: print(main(argv.split()), "
        "{'torch', 'lightning', 'torchmetrics', 'jsonargparse', 'ccl.evaluation'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    for (argv, said), told, ended in zip(cases, done.stderr.splitlines(), done.stdout.splitlines(), strict=True):
        assert said in told, argv
        assert ended in ("1 set()", "2 set()"), argv


def test_the_help_of_fit_imports_nothing_large_and_names_options_that_are_there() -> None:
    code = (
        "import sys; from ccl.cli.front import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print({'torch', 'lightning', 'jsonargparse'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--ckpt_path" in done.stdout and "--help_all" in done.stdout and done.stdout.endswith("\nset()\n")
    from ccl.cli.fit import FitCLI
    from ccl.cli.front import KEYS, OPTIONS

    joint = ROOT / "configs" / "joint.yaml"
    there = {word for action in FitCLI(["--config", str(joint)], build=False).parser._actions
             for word in action.option_strings}  # fmt: skip
    assert OPTIONS.keys() <= there
    assert all(any(word.startswith(key.removesuffix("KEY")) or word == key.removesuffix(".KEY") for word in there)
               for key in KEYS)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "key", "line"),
    [
        ("UCG2\ninit_args: {scal: {video: 4.0}}", "init_args.scal", "2 (did you mean 'scale'?)"),
        ("UCG3\ninit_args:\n  text.vidio: 4.0", "init_args.text.vidio", "3 (did you mean 'video'?)"),
        ("NoGuidance\nscale: 3", "scale", "2; there are: class_path, init_args"),
    ],
)
def test_a_wrong_key_of_a_guidance_file_is_told_before_anything_large_is_imported(
    rule: str, key: str, line: str, tmp_path: Path
) -> None:
    (file := tmp_path / "rule.yaml").write_text(f"class_path: ccl.guidance.{rule}")
    with pytest.raises(UsageError) as caught:
        check_guidance(str(file))
    assert str(caught.value) == f"there is no key '{key}' in {file}, line {line}"


def test_a_strength_that_a_guidance_file_cannot_mean_is_told_with_the_file(tmp_path: Path) -> None:
    from ccl.cli.parts import guidance_of

    (file := tmp_path / "rule.yaml").write_text(
        "{class_path: ccl.guidance.UCG2, init_args: {scale: {video: .nan, audio: 1.0}}}"
    )
    with pytest.raises(UsageError, match=rf"^{file}: the scale of video is nan"):
        guidance_of(str(file), None, None)


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "guidance").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_guidance_files_of_ours_pass(file: Path) -> None:
    check_guidance(str(file))


def test_what_is_exported_of_a_run_that_saved_nothing_or_a_lone_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    status, said = told(capsys, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "out")])
    assert status == 1
    assert "its run has not saved one yet; SaveCheckpoint, of trainer.callbacks, saves one every `every` steps" in said
    (tmp_path / "lone.pt").write_bytes(b"weights")
    status, said = told(capsys, ["export", str(tmp_path / "lone.pt"), "-o", str(tmp_path / "out")])
    assert status == 1
    assert "nor a run, nor a .ckpt in one, but a file without the config that says of which model it is" in said
    assert not (tmp_path / "out").exists()


def test_the_package_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "ccl", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ccl 0.")


@pytest.mark.parametrize(("words", "closed", "status"), [("--version", 1, 0), ("nonsense", 2, 2)])
def test_who_closes_what_is_said_to_still_gets_the_exit_status(words: str, closed: int, status: int) -> None:
    """`>&-`, as some schedulers have it; the next file that is opened must not take that number."""
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -m ccl {words} {closed}>&-'], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (status, "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BaseExceptionGroup("two ranks failed", [OSError("x")]), "ccl: two ranks failed"),
        (MemoryError("no room for 8 GB"), "ccl: no room for 8 GB\n"),
        (RuntimeError("CUDA out of memory"), "ccl: CUDA out of memory\n"),
    ],
)
def test_what_is_no_exception_and_what_the_machine_lacks_end_in_a_sentence(
    error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "run", fail)
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err.startswith(said)
