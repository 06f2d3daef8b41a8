"""The campaign of faults itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import __main__, kills


def test_a_command_that_cannot_run_here_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = kills.Target("page", "page", (), "out", kills.bytes_of, lacks="a library is not installed")
    monkeypatch.setattr(kills, "TARGETS", (target,))
    tallies = kills.campaign(tmp_path, tmp_path, 0, 1, __main__._killed)
    assert tallies["page"].rounds == 0 and not tallies["page"].faults
    assert "| page | not run: a library is not installed |" in capsys.readouterr().out
