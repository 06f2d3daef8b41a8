"""What a shell completes, asked of a real bash."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ccl.cli import VERBS
from ccl.cli.completion import options_of, script

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


@pytest.fixture(scope="module")
def sourced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "ccl.bash"
    file.write_text(script("bash"))
    return file


def completed(sourced: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    asked = f'source {sourced}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ccl; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", asked, "bash", *words], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@bash
def test_verbs_are_completed_word_by_word(sourced: Path) -> None:
    assert completed(sourced, "ccl", "") == list(dict.fromkeys(verb.split()[0] for verb in VERBS))
    assert completed(sourced, "ccl", "gen") == ["generate"]
    assert completed(sourced, "ccl", "shards", "") == [v.split()[1] for v in VERBS if v.startswith("shards ")]


@bash
def test_options_are_those_of_the_verb_and_choices_those_of_the_option(sourced: Path) -> None:
    assert completed(sourced, "ccl", "generate", "--la") == ["--last-image"]
    assert completed(sourced, "ccl", "evaluate", "--met") == ["--methods", "--metrics"]
    assert completed(sourced, "ccl", "evaluate", "merge", "--met") == []
    assert completed(sourced, "ccl", "generate", "--dtype", "") == ["bfloat16", "float32"]


@bash
def test_where_a_file_is_wanted_the_shell_is_left_to_find_it(sourced: Path) -> None:
    assert completed(sourced, "ccl", "generate", "--image", "") == []


def test_every_verb_says_its_options_in_its_help() -> None:
    for verb in VERBS:
        assert "--help" in options_of(verb), verb
    assert options_of("export")["--dtype"] == ["bfloat16", "float32"]


def test_zsh_is_given_the_same_words() -> None:
    assert script("zsh").splitlines()[4:] == script("bash").splitlines()[1:]
