"""The page in a browser: answered by keyboard, remembered, saved, and read back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ccl import cli
from ccl.study import read_answers, read_key
from helpers.browser import Page, browsing, needs_browser
from helpers.studies import system

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='hacked=1'>"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for number, name in enumerate(("alphasystem", "betasystem")):
        system(tmp_path / name, number, rows=3)
    rows = [{"id": f"row{n}", "prompt": f"{EVIL} {n}"} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    methods = [f"{name}={tmp_path / name}" for name in ("alphasystem", "betasystem")]
    more = [
        "--question",
        "sync",
        "overall",
        "--checks",
        "1",
        "--raters",
        "2",
        "--testset",
        str(tmp_path / "rows.jsonl"),
    ]
    assert cli.main(["study", "make", "--methods", *methods, *more, "-o", str(tmp_path / "study")]) == 0
    return tmp_path / "study"


def begin(page: Page, study: Path, rater: str = "", width: int = 1280, height: int = 860) -> None:
    page.open(study / "page/index.html", "#2", width, height)
    if rater:
        enter(page, rater)


def enter(page: Page, rater: str) -> None:
    page.ask(f"document.querySelector('[name=rater]').value = {json.dumps(rater)}")
    page.ask("document.querySelector('#who button').click()")


def shown(page: Page, study: Path) -> tuple[str, ...]:
    """What is on the left and on the right, as the key has it, once both were played."""
    page.until("document.body.dataset.open === 'true'")
    names = page.ask("[...document.querySelectorAll('video')].map((v) => v.src.split('/').pop().replace('.mp4', ''))")
    trials = [trial for trial in read_key(study).trials if set(trial.clips) == set(names)]
    trial = trials[0] if len(set(names)) == 2 else next(t for t in trials if t.check)
    return trial.sides if tuple(names) == trial.clips else trial.sides[::-1]


def judge(page: Page, study: Path) -> None:
    """One pair: alphasystem is better in sync, and overall there is no difference."""
    sides = shown(page, study)
    better = "ArrowDown" if sides[0] == sides[1] else ("ArrowLeft", "ArrowRight")[sides.index("alphasystem")]
    count = page.ask("document.getElementById('count').textContent")
    for key in (better, "ArrowDown"):
        page.press(key)
    page.until(f"document.body.dataset.at === 'end' || document.getElementById('count').textContent !== '{count}'")


@needs_browser
def test_a_rater_answers_by_keyboard_stops_goes_on_and_is_read_back(study: Path, tmp_path: Path, capsys) -> None:
    saved = tmp_path / "answers"
    saved.mkdir()
    with browsing(tmp_path / "profile", saved) as page:
        begin(page, study, "Ann B.")
        assert page.ask("document.body.dataset.at") == "trial"
        page.press("ArrowLeft")  # before both were heard: no answer
        kept = page.ask("Object.values(localStorage).map((v) => JSON.parse(v).answers)")
        assert [answers for answers in kept if answers is not None] == [[]]
        judge(page, study)
        judge(page, study)
        page.press("Backspace")  # takes back what was said overall
        page.until("document.getElementById('count').textContent === '2 of 4'")
        page.press("ArrowDown")
        page.until("document.getElementById('count').textContent === '3 of 4'")
        page.click("#undo")  # and so it is without a keyboard
        page.until("document.getElementById('count').textContent === '2 of 4'")
        page.press("ArrowDown")
        page.until("document.getElementById('count').textContent === '3 of 4'")
        begin(page, study)  # loaded anew
        assert page.ask("document.getElementById('resume').textContent") == "Go on as Ann B. (2 of 4)"
        stored = page.remember()
    with browsing(tmp_path / "another", saved) as page:  # closed and opened again
        page.remember(stored)
        begin(page, study)
        assert page.ask("document.getElementById('resume').textContent") == "Go on as Ann B. (2 of 4)"
        page.ask("document.getElementById('resume').click()")
        judge(page, study)
        judge(page, study)
        page.until("document.body.dataset.at === 'end'")
        text = page.ask("document.getElementById('lines').value")
        page.ask("document.getElementById('save').click()")
        end = time.monotonic() + 30
        while not (files := list(saved.glob("*.jsonl"))) and time.monotonic() < end:
            time.sleep(0.1)
        assert page.ask("document.documentElement.dataset.error || ''") == "" and not page.ask("window.hacked || 0")
    key = read_key(study)
    assert [file.name for file in files] == [f"answers-{key.study}-Ann_B_.jsonl"] and files[0].read_text() == text
    answers = read_answers(key, files)
    assert len(answers) == 8 and {answer.rater for answer in answers} == {"Ann B."}
    assert {a.side for a in answers if a.question == "sync" and not a.trial.check} == {"alphasystem"}
    assert {a.side for a in answers if a.question == "overall"} == {""}
    capsys.readouterr()
    assert cli.main(["study", "read", str(study), str(saved)]) == 0
    assert "| sync | alphasystem over betasystem | 100.0% |" in capsys.readouterr().out


@needs_browser
def test_both_play_at_once_in_time_with_the_sound_that_is_chosen(study: Path, tmp_path: Path) -> None:
    look = "[...document.querySelectorAll('video')].map((v) => [v.muted, v.paused, v.currentTime])"
    with browsing(tmp_path / "profile") as page:
        begin(page, study, "bob")
        page.until("document.body.dataset.open === 'true'")
        page.ask("document.querySelectorAll('video').forEach((v) => { v.defaultPlaybackRate = 0.1; })")
        page.press("b")
        page.until(f"{look}.every(([, paused, time]) => !paused && time > 0)")
        (one, _, a), (other, _, b) = page.ask(look)
        assert (one, other) == (False, True) and abs(a - b) < 0.08
        page.press("2")
        (one, still, _), (other, _, _) = page.ask(look)
        assert (one, still, other) == (True, False, False)
        page.press("1")
        page.until(f"{look}[0][0] === false")
        page.press(" ")
        page.until(f"{look}.filter(([, paused]) => paused).length === 1")


@needs_browser
def test_a_clip_that_does_not_play_can_be_passed_over(study: Path, tmp_path: Path) -> None:
    for path in (study / "page/clips").iterdir():
        path.write_bytes(b"no film")
    with browsing(tmp_path / "profile") as page:
        begin(page, study, "cid")
        for _ in range(4):
            page.until("!document.getElementById('broken').hidden")
            count = page.ask("document.getElementById('count').textContent")
            page.ask("document.getElementById('skip').click()")
            page.until(
                f"document.body.dataset.at === 'end' || document.getElementById('count').textContent !== '{count}'"
            )
        lines = page.ask("document.getElementById('lines').value").splitlines()
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert {a.side for a in read_answers(read_key(study), [tmp_path / "a.jsonl"])} == {None} and len(lines) == 8


@needs_browser
def test_two_raters_and_two_parts_in_one_browser_keep_their_own_answers(study: Path, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile") as page:
        begin(page, study, "dora")
        judge(page, study)
        begin(page, study, "emil")
        assert page.ask("document.getElementById('count').textContent") == "1 of 4"
        begin(page, study, "dora")
        assert page.ask("document.getElementById('count').textContent") == "2 of 4"


@needs_browser
def test_two_raters_in_two_tabs_do_not_write_over_each_other(study: Path, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile") as page:
        begin(page, study)
        other = page.tab()
        begin(other, study)  # it knows of no rater yet
        page("Page.bringToFront")
        enter(page, "dora")
        judge(page, study)
        enter(other, "emil")
        kept = other.ask("({...localStorage})") | page.ask("({...localStorage})")  # each knows its own at once
        found = [json.loads(value) for key, value in kept.items() if "answers" in value]
        assert {rater["rater"]: len(rater["answers"]) for rater in found} == {"dora": 2, "emil": 0}


@needs_browser
@pytest.mark.parametrize("fragment", ["", "#0", "#3", "#%", "#two"])
def test_an_address_that_names_no_part_lets_one_choose(study: Path, tmp_path: Path, fragment: str) -> None:
    with browsing(tmp_path / "profile") as page:
        page.open(study / "page/index.html", fragment)
        assert page.ask("document.getElementById('whichpart').hidden") is False
        assert page.ask("document.querySelector('[name=part]').value") in ("1", "2")


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 860), (390, 844)])
def test_the_page_fits_its_screen(study: Path, tmp_path: Path, width: int, height: int) -> None:
    from PIL import Image

    with browsing(tmp_path / "profile") as page:
        begin(page, study, "flo", width, height)
        page.until("document.body.dataset.open === 'true'")
        assert page.ask("document.documentElement.scrollWidth") <= width
        bottom = page.ask("document.querySelector('.question.now').getBoundingClientRect().bottom")
        assert bottom <= height, "the answers are seen without scrolling"
        with Image.open(page.shot(tmp_path / "shot.png")) as picture:
            assert picture.size == (width, height) and len(picture.convert("RGB").getcolors(1 << 24)) > 50
