"""The pages of the docs: none is lost, links and commands are right, pictures are what the code draws."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccl.cli import VERBS, choose
from ccl.cli.completion import options_of
from helpers import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CONFIGURED = ("fit", "plan", "bench", "inspect route", "inspect alignment")  # take any key of a config as an option


class Site(yaml.SafeLoader):
    """mkdocs.yml may name functions of Python."""


Site.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def pages_of(node: Any) -> Iterator[str]:
    """The files of a navigation."""
    if isinstance(node, str):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from pages_of(child)


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), Site)["nav"]
    listed = list(pages_of(nav))
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in PAGES)


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)


@cache
def anchors(path: Path) -> set[str]:
    """Of its headings, as mkdocs makes them."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", prose(path), flags=re.M):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]|\]\(.*?\)|\[", "", title)).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", words))
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def commands(page: Path) -> Iterator[str]:
    """The lines of its blocks of shell that call ccl, those that go on after a backslash as one."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if (at := re.search(r"(?:^|-- |--no-python |&& )(ccl .+)", line)) is not None:
                yield at[1]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=lambda path: path.name)
def test_every_command_of_a_page_has_a_verb_and_options_that_there_are(page: Path) -> None:
    """The lab notebook is left out: it says what was typed that day."""
    for line in commands(page):
        words = shlex.split(line.split(" | ")[0].split(" > ")[0], comments=True)[1:]
        if not words or words[0].startswith("-"):
            continue
        verb, rest = choose(words)
        assert verb in VERBS, line
        known = options_of(verb)
        for word in rest:
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag != "--" and not (verb in CONFIGURED and ("." in flag or "_" in flag)):
                assert flag in known or (verb in CONFIGURED and flag in options_of("fit")), f"{line}: {flag}"


def test_the_pictures_of_the_ideas_are_what_the_code_draws() -> None:
    drawn = runpy.run_path(str(DOCS / "concepts.py"))["PICTURES"]
    assert {name: draw() for name, draw in drawn.items()} == {name: (DOCS / name).read_text() for name in drawn}


def test_the_rooms_of_the_package_can_be_drawn_one_above_the_other() -> None:
    drawing = runpy.run_path(str(DOCS / "architecture.py"))
    drawing["levels"](drawing["needs"]())  # CycleError names the circle


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    program = shutil.which("mkdocs") or Path(sys.executable).with_name("mkdocs")
    if not Path(program).exists():
        pytest.skip("mkdocs is not installed: pip install 'ccl[docs]'")
    command = [str(program), "build", "--quiet", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "JointDiffusion" in (tmp_path / "api" / "train" / "index.html").read_text()
    assert "cdn" not in (tmp_path / "index.html").read_text()  # nothing is loaded from elsewhere
