"""What is released: the wheel holds what a user needs and nothing else, and works without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from helpers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    """Output of a command that must succeed, with nothing of this repository on its path."""
    hidden = ("PYTHONPATH", "PYTHONSTARTUP", "CCL_WEIGHTS")
    environment = {key: value for key, value in os.environ.items() if key not in hidden} | more
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    out, place = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("build")
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / "bin" / "python"
    got = subprocess.run([python, "-m", "pip", "install", "--quiet", "hatchling"], capture_output=True, text=True)
    if got.returncode:
        pytest.skip("hatchling cannot be fetched here, so nothing is built")
    run(python, "-m", "hatchling", "build", "-d", out, cwd=ROOT)
    return out


def test_the_wheel_holds_the_package_the_configs_and_the_benchmark_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"ccl"}
    listed = subprocess.run(["git", "ls-files", "src", "configs"], cwd=ROOT, capture_output=True, text=True, check=True)
    source = {line.removeprefix("src/") if line.startswith("src/") else f"ccl/{line}" for line in listed.stdout.split()}
    assert source <= names
    assert all(name.startswith("ccl/benchmark/") for name in names - source)
    assert {"ccl/py.typed", "ccl/configs/joint.yaml", "ccl/benchmark/protocol.yaml"} <= names
    assert not any(name.endswith((".pyc", ".ckpt", ".mp4")) for name in names)


def test_the_source_archive_can_be_built_and_tested_and_holds_nothing_that_was_made(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"pyproject.toml", "LICENSE", "Makefile", "src/ccl/__init__.py", "tests/conftest.py"} <= names
    assert not {name.split("/")[0] for name in names} & {"runs", "out", ".venv", ".git", ".ci"}


def test_an_installed_wheel_does_the_whole_way_in_an_empty_folder(built: Path, tmp_path: Path) -> None:
    """With this environment's packages, but not its ccl."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    # A plain path: what .pth files of that folder add, as this ccl, is not read.
    (Path(own) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "work"
    work.mkdir()
    ccl = tmp_path / "venv" / "bin" / "ccl"
    assert str(tmp_path) in run(python, "-c", "import ccl; print(ccl.__file__)", cwd=work)
    run(ccl, "init", cwd=work)
    assert "Parameters" in run(ccl, "plan", "--config", "configs/joint.yaml", cwd=work)
    run(ccl, "demo", "--smoke", cwd=work, OMP_NUM_THREADS="2")
    run(ccl, "generate", "--prompt", "a red ball", "--steps", "2", "-o", "ball.mp4", cwd=work)
    assert (work / "ball.mp4").stat().st_size > 1000


@pytest.mark.parametrize("extras", ["", "[eval,world]"])
def test_it_installs_into_an_empty_environment_with_and_without_extras(
    built: Path, tmp_path: Path, extras: str
) -> None:
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", f"{wheel}{extras}"]
    got = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution" in got.stderr or "ConnectionError" in got.stderr:
        pytest.skip(f"the packages cannot be fetched here: {got.stderr.splitlines()[-1]}")
    assert got.returncode == 0, got.stderr[-2000:]
    ccl = tmp_path / "venv" / "bin" / "ccl"
    done = subprocess.run([str(ccl), "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert ("Traceback" not in done.stderr) and "Packages" in done.stdout
    assert (done.returncode == 0) == bool(extras)  # without the world's voice the first commands cannot be run
    run(ccl, "generate", "--prompt", "a red ball", "--steps", "2", "-o", "ball.mp4", cwd=tmp_path)
    if sys.platform == "linux":
        assert (tmp_path / "ball.mp4").stat().st_size > 1000
