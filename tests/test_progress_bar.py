"""What a log says of something that takes long."""

from __future__ import annotations

import pytest

from ccl import progress


def test_a_log_says_at_once_what_begins_and_then_once_a_minute_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.bar("world: 40 clips") as advance:
        assert capsys.readouterr().err == ""  # where nothing comes of it, a sentence says why, and stands alone
        advance(0, 40)
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
