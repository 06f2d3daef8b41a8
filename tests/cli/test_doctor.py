"""What `ccl doctor` finds, and the commands that it names."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from ccl import cli
from ccl.cli import doctor
from ccl.evaluation import METRICS
from ccl.weights import catalogue
from helpers import ROOT


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command as a script reads it: its status and what it found."""

    def run() -> tuple[int, dict[str, Any]]:
        status = cli.main(["doctor", "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["what"]: one for one in found}


def test_a_machine_on_which_the_tests_run_is_fine(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = told()
    ill = [one for name in doctor.SECTIONS for one in found[name] if one["needed"] and not one["fine"]]
    assert (status, found["fine"], ill) == (0, True, [])
    assert cli.main(["doctor"]) == 0
    assert "libx264" in capsys.readouterr().out


def test_each_metric_says_for_itself_what_it_lacks(told: Any) -> None:
    found = by_name(told()[1]["metrics"])
    assert list(found) == list(METRICS)
    for name, cls in METRICS.items():
        assert found[name]["said"] == (cls().missing() or "can be measured")
        assert not found[name]["needed"]


def test_commands_that_fetch_name_weights_that_there_are(told: Any) -> None:
    mends = [one["mend"] for one in told()[1]["metrics"]]
    names = [name for mend in mends if mend.startswith(doctor.FETCH) for name in mend[len(doctor.FETCH) :].split()]
    assert set(names) <= set(catalogue.TABLE)


def test_a_package_that_is_absent_or_too_old_is_told_with_its_command(
    told: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: {"av": None, "torch": "2.1.0"}.get(name, real(name)))
    status, found = told()
    packages = by_name(found["packages"])
    assert status == 1 and not found["fine"]
    assert packages["av"]["said"].startswith("not installed") and packages["av"]["mend"].startswith("pip install 'av")
    assert "2.1.0" in packages["torch"]["said"] and ">=2.8" in packages["torch"]["said"]
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "To mend:\n  pip install 'av" in said


def test_a_codec_that_is_not_there_is_told_with_what_it_costs(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.CODERS, "libnone", ("w", "no film can be written"))
    status, found = told()
    assert status == 1 and "no film can be written" in by_name(found["codecs"])["libnone"]["said"]


def test_a_full_disk_is_told(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOM", 1e18)
    status, found = told()
    assert status == 1 and not by_name(found["disk"])["here"]["fine"]


def test_on_windows_it_says_what_to_use_instead(
    told: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "windows", lambda: True)
    status, found = told()
    assert status == 1 and "WSL2" in by_name(found["packages"])["system"]["said"]
    assert cli.main(["doctor"]) == 1
    assert "To mend:\n  wsl --install" in capsys.readouterr().out


def test_every_extra_that_users_have_is_told() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"dev", "docs"}


def test_what_fetches_weights_is_one_command() -> None:
    commands = ["pip install 'x'", "ccl weights fetch a", "", "ccl weights fetch b", "ccl weights fetch a"]
    assert doctor.together(commands) == ["pip install 'x'", "ccl weights fetch a b"]
