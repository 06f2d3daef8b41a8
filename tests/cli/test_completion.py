"""What a shell completes, asked of a real bash, fish and zsh."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccl.cli import VERBS
from ccl.cli.completion import options_of, script

FIRST = list(dict.fromkeys(verb.split()[0] for verb in VERBS))
# In bash, what it would have set for the last of the words; in fish, its own answer.
ASK = {
    "bash": 'source {file}; COMP_WORDS=({line}""); ((COMP_CWORD=${{#COMP_WORDS[@]}}-1)); _ccl; echo ${{COMPREPLY[@]}}',
    "fish": "source {file}; complete -C '{line}'",
}


def shells(*names: str) -> list[object]:
    return [
        pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name} here"))
        for name in names
    ]


@pytest.fixture(scope="module", params=shells("bash", "fish"))
def sourced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A shell and the script for it."""
    file = tmp_path_factory.mktemp("completion") / f"ccl.{request.param}"
    file.write_text(script(request.param))
    return request.param, file


def completed(sourced: tuple[str, Path], line: str) -> list[str]:
    """What a shell offers for the last word of a line, in the order of the alphabet; it has a HOME without files."""
    shell, file = sourced
    asked = ASK[shell].format(file=file, line=line)
    environment = os.environ | {"HOME": str(file.parent)}
    done = subprocess.run([shell, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return sorted(done.stdout.split())


def test_verbs_are_completed_word_by_word(sourced: tuple[str, Path]) -> None:
    assert completed(sourced, "ccl ") == sorted(FIRST)
    assert completed(sourced, "ccl gen") == ["generate"]
    assert completed(sourced, "ccl shards ") == sorted(v.split()[1] for v in VERBS if v.startswith("shards "))


def test_options_are_those_of_the_verb_and_choices_those_of_the_option(sourced: tuple[str, Path]) -> None:
    assert completed(sourced, "ccl generate --la") == ["--last-image"]
    assert completed(sourced, "ccl evaluate --met") == ["--methods", "--metrics"]
    assert completed(sourced, "ccl evaluate merge --met") == []
    assert completed(sourced, "ccl generate --dtype ") == ["bfloat16", "float32"]


def test_where_a_file_is_wanted_the_shell_is_left_to_find_it(
    sourced: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("apple.png").touch()
    own = {"bash": [], "fish": ["apple.png"]}  # bash asks the function alone here, and `complete -o default` for files
    assert completed(sourced, "ccl generate --image ") == own[sourced[0]]


@pytest.fixture
def zsh(tmp_path: Path) -> Iterator[int]:
    """The terminal of an interactive zsh that has read the script, in a folder with one file."""
    (tmp_path / "ccl.zsh").write_text(script("zsh"))
    (tmp_path / "apple.png").touch()
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], os.environ | {"TERM": "dumb", "PS1": "", "HOME": str(tmp_path)})
    os.write(terminal, b"source ccl.zsh; print rea''dy\r")
    assert "ready" in shown(terminal, "ready")
    yield terminal
    os.kill(process, 9)
    os.close(terminal)
    os.waitpid(process, 0)


def shown(terminal: int, until: str) -> str:
    """What a terminal shows, up to some words."""
    text, end = "", time.monotonic() + 30
    while until not in text and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            text = re.sub(r"\x1b\[[\d;?]*\w|\x07|\x08", "", text + os.read(terminal, 65536).decode(errors="replace"))
    return text


@pytest.mark.parametrize("shell", shells("zsh"))
@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("ccl gen", "generate "),
        ("ccl generate --la", "--last-image "),
        ("ccl generate --dtype bf", "bfloat16 "),
        ("ccl generate --image ap", "apple.png "),
    ],
)
def test_zsh_completes_a_line_at_the_tab(shell: str, line: str, whole: str, request: pytest.FixtureRequest) -> None:
    terminal = request.getfixturevalue(shell)
    os.write(terminal, line.encode() + b"\t")
    assert whole in shown(terminal, whole)


def test_zsh_is_given_the_words_of_bash() -> None:
    assert script("zsh").splitlines()[4:] == script("bash").splitlines()[1:]


def test_every_verb_says_its_options_in_its_help() -> None:
    for verb in VERBS:
        assert "--help" in options_of(verb), verb
    assert options_of("export")["--dtype"] == ["bfloat16", "float32"]
