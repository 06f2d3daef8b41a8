"""What a log says of something that takes long."""

from __future__ import annotations

import pytest

from ccl import progress


def test_a_log_says_at_once_what_begins_and_then_once_a_minute_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.bar("world: 40 clips", said=True) as advance:
        assert capsys.readouterr().err == "world: 40 clips\n"
        for done in range(41):
            now = 15.0 * done
            advance(done, 40)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [
        "world: 40 clips: 4 of 40, about 9 min left",
        "world: 40 clips: 8 of 40, about 8 min left",
    ]
    assert len(said) == 10


def test_what_fails_within_a_minute_has_said_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("writing clips") as advance:
        advance(0, 40)
        advance(1, 40)
    assert capsys.readouterr().err == ""
