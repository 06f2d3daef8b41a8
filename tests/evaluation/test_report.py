"""The report: whole, safe with any text, and alive in a browser."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

from ccl.evaluation.report import charts
from ccl.evaluation.report import page as report
from ccl.evaluation.store import feature_path, packed
from ccl.evaluation.tables.results import Results
from ccl.files import write_whole
from ccl.media import read_natural, write_clip
from helpers.browser import BROWSER, QUIET, browsing, needs_browser
from helpers.scored import NO_FACE, PUBLISHED, scored
from helpers.tiny_clips import TINY, tiny_clip

EVIL = '</script><script>window.hacked = 1</script><img src=x onerror="hacked=1"><!-- \u2028 $css &amp; \'"'


@pytest.fixture
def results(tmp_path) -> Results:
    """Two systems, four rows; ovi/r1 is no film, ovi/r2 is missing, ovi/r3 is a sound."""
    clips = {("ours", f"r{i}"): tmp_path / "ours" / f"r{i}.mp4" for i in range(4)}
    for number, path in enumerate(clips.values()):
        write_clip(tiny_clip(number), path)
    clips |= {("ovi", f"r{i}"): tmp_path / "ovi" / f"r #{i}.mp4" for i in range(3)}
    write_clip(tiny_clip(9), clips["ovi", "r0"])
    clips["ovi", "r1"].write_bytes(b"no film")
    clips["ovi", "r3"] = tmp_path / "ovi" / "r3.wav"
    write_clip(replace(tiny_clip(3), video=None), clips["ovi", "r3"])
    return scored(clips=clips)


def page(results: Results, tmp_path: Path, **options) -> str:
    report.write(results, tmp_path / "out" / "report.html", **options)
    return (tmp_path / "out" / "report.html").read_text()


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


class Tags(HTMLParser):
    """Tags that stay open, and what scripts there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack, self.scripts, self.wrong = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            self.scripts.append(dict(attrs))
        if tag not in {"meta", "input", "img", "br"}:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if self.stack[-1:] == [tag]:
            self.stack.pop()
        else:
            self.wrong.append(tag)


def test_every_clip_lies_in_the_page_as_it_is(results, tmp_path):
    text = page(results, tmp_path)
    for place, sample in enumerate(data_of(text)["samples"]):
        for method, clip in zip(("ours", "ovi"), sample["clips"], strict=True):
            if "data" in clip:
                bytes_ = re.search(rf'<script type="text/plain" id="{clip["data"]}">(.*?)</script>', text)[1]
                assert base64.b64decode(bytes_) == results.clips[method, f"r{place}"].read_bytes()
            else:
                assert (method, sample["id"]) == ("ovi", "r2") and clip["note"] == "no file"
    assert not re.search(r'(src|href)="(?!#)', text)  # nothing is asked of a network or a folder


def test_samples_carry_scores_reasons_words_and_first_pictures(results, tmp_path):
    data = data_of(page(results, tmp_path))
    ours, ovi = data["samples"][0]["clips"]
    assert ours["values"] == {"cu": 5.0, "wer": 0.0, "sync_c": 7.0, "mouth": 0.8} and ours["why"] == {}
    assert "sync_c" not in ovi["values"] and data["reasons"][ovi["why"]["sync_c"]] == NO_FACE
    assert ours["text"] == "hello there my friend" and ours["poster"].startswith("data:image/jpeg;base64,")
    assert "corrupt" in data["samples"][1]["clips"][1]["note"] and "poster" not in data["samples"][1]["clips"][1]
    assert data["samples"][3]["clips"][1]["type"] == "audio/wav"
    assert [c["name"] for c in data["columns"]] == ["cu", "wer", "sync_c", "mouth"]


def test_clips_that_weigh_too_much_are_linked_and_the_page_says_so(results, tmp_path):
    text = page(results, tmp_path, limit_mb=0.001)
    data = data_of(text)
    assert data["samples"][0]["clips"][1]["href"] == "../ovi/r%20%230.mp4"
    assert "not self-contained" in text and 'type="text/plain"' not in text
    assert "not self-contained" not in page(results, tmp_path)


def test_no_text_can_become_markup(results, tmp_path):
    evil = scored((EVIL, "ovi"), prompt=EVIL, speech=EVIL)
    rows = [dict(r, reason=EVIL if r["reason"] else None, **({"text": EVIL} if "text" in r else {})) for r in evil.rows]
    causes, protocol = {EVIL: [EVIL]}, {EVIL: {EVIL: EVIL}, "x": {"missing": EVIL}}
    clips = {(EVIL, "r0"): next(iter(results.clips.values()))}
    text = page(replace(evil, rows=rows, causes=causes, protocol=protocol, clips=clips), tmp_path)
    tags = Tags(text)
    assert len(tags.scripts) == 3 and not tags.wrong and not tags.stack
    assert "<img" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert data_of(text)["samples"][0]["prompt"] == EVIL


def test_markup_is_closed(results, tmp_path):
    for some in (results, scored(("joint", "ceiling")), scored(tuple(f"m{i}" for i in range(12)))):
        tags = Tags(page(some, tmp_path, published=PUBLISHED))
        assert not tags.wrong and not tags.stack


def test_the_page_has_what_the_tables_have(results, tmp_path):
    text = page(results, tmp_path, published=PUBLISHED)
    assert "Ovi†" in text and "ours minus ovi" in text and NO_FACE in text and "min track 50" in text
    assert text.count('<svg class="strips"') == 4  # of the shown columns that were measured
    assert '<td class="first best"><b>5.15</b>' in text
    assert "ceiling" in page(scored(("joint", "ceiling")), tmp_path)


def test_the_page_tells_failures_from_what_does_not_apply_and_marks_partial_values(tmp_path):
    from helpers.scored import without

    lost = without(scored(), "ovi", "cu", {"r2", "r3"}, NO_FACE)
    some = without(lost, "ours", "wer", {"r0"}, "nothing was to be spoken", applicable=False)
    text = page(some, tmp_path)
    for heading in ("CU ↑, easy", "CU ↑, hard", "CU ↑, mean"):
        assert f">{heading}</th>" in text
    assert "<b>5.05</b>‡§" in text and "<small>5.15 of 4, 2 common</small><small>of easy</small>" in text
    clip = data_of(text)["samples"][0]["clips"][0]
    assert clip["why"] == {} and data_of(text)["reasons"][clip["apart"]["wer"]] == "nothing was to be spoken"


def test_a_difference_of_clips_too_few_for_an_interval_begins_with_its_p(tmp_path):
    text = page(scored(count=2), tmp_path)
    assert "<small>p = " in text and "<small>," not in text


def test_nothing_scored_still_makes_a_page(tmp_path):
    assert "no clips beside these scores" in page(Results([], [], ()), tmp_path)


def test_axes_have_round_ticks_within_what_they_show():
    for values in ([0.1, 0.93], [5.0, 5.0], [-3.0, 1e4], [0.0462, 2.0]):
        low, high, ticks = charts.axis(np.array(values))
        assert low < min(values) <= max(values) < high and 2 <= len(ticks) <= 7
        assert all(low <= tick <= high for tick in ticks) and np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_every_clip_is_a_dot():
    column = scored(count=40).columns[0]
    picture = charts.strips(scored(count=40), column, {"ours": 0, "ovi": 1})
    assert picture.index('class="median"') < picture.index('class="dots"'), "or clips of one value hide behind the tick"
    assert sum(d.count("M") for d in re.findall(r'class="dots" d="([^"]*)"', picture)) == 80


# In a browser ------------------------------------------------------------------------------------------------------


def browse(path: Path, profile: Path, *options: str) -> str:
    """What the page has become, its scripts run."""
    options = ("--virtual-time-budget=8000", f"--user-data-dir={profile}", *options)
    command = [str(BROWSER), *QUIET, *options, path.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_browser
def test_the_page_comes_alive_worst_first_and_without_errors(results, tmp_path):
    text = page(results, tmp_path)
    # Play the first clip once all is there, so that a picture that moves is seen to be one.
    click = "<script>document.querySelector('.play').click()</script></body>"
    (tmp_path / "out" / "report.html").write_text(text.replace("</body>", click))
    dom = browse(tmp_path / "out" / "report.html", tmp_path / "profile", "--dump-dom")
    assert 'data-ready="4"' in dom and "data-error" not in dom
    assert re.findall(r'<article class="sample" data-id="(r\d)"', dom) == ["r0", "r1", "r2", "r3"]  # CU rises
    assert dom.count('<section class="clip') == 8 and '<ul class="why"' in dom
    assert re.search(r"<video[^>]*src=\"blob:", dom)


@needs_browser
def test_samples_are_sorted_and_filtered(tmp_path):
    path = tmp_path / "out" / "report.html"
    text = page(scored(count=60), tmp_path)
    use = """<script>
    const set = (name, value) => { tools[name].value = value; tools.dispatchEvent(new Event("input")); };
    const seen = () => [...document.querySelectorAll(".sample")].map((n) => n.dataset.id).join();
    const tell = (name, text) => { document.body.dataset[name] = text; };
    set("order", "best"); tell("best", seen().split(",")[0]);
    set("sort", "wer"); set("of", "1"); set("order", "worst"); set("subset", "hard");
    tell("hard", seen().split(",")[0]);
    set("only", "failed"); tell("none", seen()); set("subset", ""); tell("failed", seen());
    set("only", ""); set("find", "R17"); tell("find", seen());
    set("find", ""); document.getElementById("more").click();
    </script></body>"""
    path.write_text(text.replace("</body>", use))
    dom = browse(path, tmp_path / "profile", "--dump-dom")
    told = dict(re.findall(r'data-(best|hard|none|failed|find)="([^"]*)"', re.search("<body[^>]*>", dom)[0]))
    assert told == {"best": "r59", "hard": "r30", "none": "", "failed": "r0", "find": "r17"}
    assert dom.count('<article class="sample"') == 40  # twenty at a time


@needs_browser
def test_what_does_not_apply_is_no_dash(tmp_path):
    from helpers.scored import without

    path = tmp_path / "out" / "report.html"
    page(without(scored(), "ours", "wer", {"r0"}, "nothing was to be spoken", applicable=False), tmp_path)
    dom = browse(path, tmp_path / "profile", "--dump-dom")
    assert dom.count("<dd>n/a</dd>") == 1 and 'class="why apart"><li>nothing was to be spoken <span>(WER)' in dom
    assert dom.count('<ul class="why">') == 1  # the face that ovi's r0 lacks


@needs_browser
def test_the_browser_takes_no_text_for_markup(tmp_path):
    page(scored((EVIL, "ovi"), prompt=EVIL, speech=EVIL), tmp_path)
    path = tmp_path / "out" / "report.html"
    path.write_text(
        path.read_text().replace("</body>", "<script>document.title = 'hacked ' + window.hacked</script></body>")
    )
    dom = browse(path, tmp_path / "profile", "--dump-dom")
    assert "<title>hacked undefined</title>" in dom and "data-error" not in dom and 'data-ready="4"' in dom


@needs_browser
def test_the_page_can_be_looked_at(results, tmp_path):
    page(results, tmp_path, published=PUBLISHED)
    from PIL import Image

    for width in (1400, 800):
        shot = tmp_path / f"{width}.png"
        browse(
            tmp_path / "out" / "report.html",
            tmp_path / "profile",
            f"--window-size={width},1600",
            f"--screenshot={shot}",
        )
        with Image.open(shot) as picture:
            assert picture.width == width and len(picture.convert("RGB").getcolors(1 << 24)) > 50  # not an empty page


@pytest.fixture
def pairs(tmp_path) -> Path:
    """A page of three systems and four rows of clips of two seconds; no clip of the third has a sound."""
    clips = {(m, f"r{i}"): tmp_path / m / f"r{i}.mp4" for m in ("ours", "ovi", "mova") for i in range(4)}
    for number, (key, path) in enumerate(clips.items()):
        clip = tiny_clip(number, replace(TINY, height=48, width=64), seconds=2)
        write_clip(replace(clip, audio=None) if key[0] == "mova" else clip, path)
    page(scored(("ours", "ovi", "mova"), clips=clips), tmp_path)
    return tmp_path / "out" / "report.html"


SHOW = "(name, value) => { tools[name].value = value; tools.dispatchEvent(new Event('input')); }"
TIMES = "Player.live.open.map((p) => p.media.currentTime)"
SEEN = "[...document.querySelectorAll('.sample')].map((n) => n.dataset.id)"


@needs_browser
def test_two_systems_play_in_one_time_and_one_of_them_is_heard(pairs, tmp_path):
    with browsing(tmp_path / "profile") as tab:
        tab.open(pairs)
        assert tab.ask("document.querySelectorAll('video').length") == 0  # until they are played
        tab.ask(f"({SHOW})('show', '0,1')")
        tab.press("j")
        assert tab.ask("location.hash") == "#row=r0"
        tab.press(" ")
        tab.until("Player.live && Player.live.time > 0.3")
        for _ in range(5):
            first, second = tab.ask(TIMES)
            assert abs(first - second) < 0.2
        assert tab.ask("Player.live.open.map((p) => p.media.muted)") == [False, True]
        tab.press("m")
        assert tab.ask("Player.live.open.map((p) => p.media.muted)") == [True, False]
        tab.press(" ")
        assert tab.ask("Player.live.open.every((p) => p.media.paused)")
        # One bar for both, and a picture of time under each.
        tab.ask(
            "(() => { const b = document.querySelector('.at .bar input'); b.value = 1.5;"
            " b.dispatchEvent(new Event('input')); })()"
        )
        tab.until(f"{TIMES}.every((t) => Math.abs(t - 1.5) < 0.05)")
        heads = tab.ask("[...document.querySelectorAll('.at .head')].map((h) => parseFloat(h.style.left))")
        assert heads == pytest.approx([75, 75], abs=3)
        tab.press("ArrowLeft")
        tab.until(f"{TIMES}.every((t) => Math.abs(t - 1) < 0.05)")
        # The order on the screen is swapped, and nothing stops for it.
        left = "[...document.querySelectorAll('.at .clip')].map((c) => c.getBoundingClientRect().left)"
        before = tab.ask(left)
        tab.press("s")
        assert tab.ask(left) == before[::-1] and tab.ask("Player.live.open.length") == 2
        tab.press("j")
        assert tab.ask("location.hash") == "#row=r1" and tab.ask("document.querySelectorAll('video').length") == 0


@needs_browser
def test_a_sound_alone_plays_in_a_low_box(results, tmp_path):
    page(results, tmp_path)
    with browsing(tmp_path / "profile") as tab:
        tab.open(tmp_path / "out" / "report.html", "#row=r3")
        tab.click(".at .clip:last-child .play")
        tab.until("Player.live && Player.live.open[0].media.tagName === 'AUDIO'")
        assert tab.ask("document.querySelector('.at .open .frame').offsetHeight") < 160


@needs_browser
def test_clips_at_their_end_begin_again_together(pairs, tmp_path):
    with browsing(tmp_path / "profile") as tab:
        tab.open(pairs)
        tab.click(".sample .go")
        tab.until("Player.live && Player.live.time > 0.1")
        tab.ask("Player.live.seek(1.8)")
        tab.until("Player.live.time < 1 && Player.live.playing && Player.live.open.every((p) => !p.media.paused)")
        assert np.ptp(tab.ask(TIMES)) < 0.2 and len(tab.ask(TIMES)) == 3


@needs_browser
def test_samples_are_filtered_by_a_range_and_by_whose_clips_failed(tmp_path):
    path = tmp_path / "out" / "report.html"
    page(scored(count=60), tmp_path)
    with browsing(tmp_path / "profile") as tab:
        tab.open(path)
        for name, value in (("by", "cu"), ("of", "0"), ("least", "6.95"), ("most", "7.2")):
            tab.ask(f"({SHOW})('{name}', '{value}')")
        assert tab.ask(SEEN) == ["r20", "r21", "r22"]  # CU of ours is 5 + 0.1 i
        tab.ask(f"({SHOW})('of', '1')")
        assert tab.ask(SEEN) == ["r30", "r31", "r32"]
        tab.ask(f"({SHOW})('of', '0,1')")
        assert tab.ask(SEEN) == []  # they differ by 1
        tab.ask(f"({SHOW})('by', 'wer')"), tab.ask(f"({SHOW})('of', '1')")
        tab.ask(f"({SHOW})('least', '24')"), tab.ask(f"({SHOW})('most', '26')")  # as the page writes it, in percent
        assert len(tab.ask(SEEN)) == 20
        tab.ask(f"({SHOW})('by', '')"), tab.ask(f"({SHOW})('only', 'failed')")
        assert tab.ask(SEEN) == ["r0"]
        tab.ask(f"({SHOW})('of', '0')")
        assert tab.ask(SEEN) == []


@needs_browser
def test_a_link_leads_to_its_row_whatever_hides_it(tmp_path):
    path = tmp_path / "out" / "report.html"
    page(scored(count=60), tmp_path)
    with browsing(tmp_path / "profile") as tab:
        tab.open(path, "#row=r47")
        seen = "(() => { const r = document.querySelector('.at').getBoundingClientRect();"
        seen += " return r.top >= 40 && r.top < 200 && document.querySelector('.at').dataset.id; })()"
        tab.until(f"{seen} === 'r47'")
        tab.ask(f"({SHOW})('find', 'r3')")
        tab.ask("location.hash = '#row=r5'")
        tab.until("document.querySelector('.at')?.dataset.id === 'r5'")
        tab.until(f"{seen} === 'r5'")
        assert tab.ask("tools.find.value") == ""
        tab.ask("location.hash = '#row=nobody'")
        tab.until("document.getElementById('count').textContent === 'There is no row nobody.'")
        tab.ask("location.hash = '#row=50%'")
        tab.until("document.getElementById('count').textContent === 'There is no row 50%.'")


@needs_browser
def test_a_phone_shows_the_page_without_moving_sideways(pairs, tmp_path):
    with browsing(tmp_path / "profile") as tab:
        tab.open(pairs, "#row=r1", width=360, height=740)
        tab.ask(f"({SHOW})('show', '0,1')")
        assert tab.ask("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
        tops = tab.ask("[...document.querySelectorAll('.sample:first-child .clip')].map((c) => c.offsetTop)")
        assert tops[0] == tops[1]  # side by side all the same


@needs_browser
def test_a_page_of_hundreds_is_quick(tmp_path):
    path = tmp_path / "out" / "report.html"
    page(scored(("a", "b", "c"), count=200), tmp_path)
    with browsing(tmp_path / "profile") as tab:
        tab.open(path)
        sort = f"({SHOW})('order', 'best')"
        timed = f"const t = performance.now(); {sort}; document.body.offsetHeight; return performance.now() - t;"
        took = f"(() => {{ {timed} }})()"
        assert tab.ask(took) < 1000  # milliseconds
        assert tab.ask(f"{SEEN}.length") < 100  # the others as one comes to them


def strange_clip(path: Path, codec: str, number: int = 0) -> Path:
    """The pictures of a small clip in a codec that browsers do not show, with its sound."""
    clip = tiny_clip(number, replace(TINY, height=48, width=64), seconds=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("mp3", rate=16_000, layout="mono")
        for picture in clip.video:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(clip.audio[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux([*audio.encode(frame), *audio.encode(None)])
    return path


@needs_browser
@pytest.mark.parametrize(("codec", "file"), [("libx265", "r0.mp4"), ("mpeg4", "r0.avi")])
def test_what_browsers_do_not_show_is_converted_and_said(tmp_path, codec, file):
    clips = {("ours", "r0"): strange_clip(tmp_path / "ours" / file, codec)}
    text = page(scored(("ours",), clips=clips), tmp_path)
    what = {"libx265": "hevc", "mpeg4": "mpeg4, mp3 sound in avi"}[codec]
    assert f"converted for the page (1 of {what})" in text
    clip = data_of(text)["samples"][0]["clips"][0]
    assert clip["from"] == what and clip["seconds"] == pytest.approx(1, abs=0.1) and clip["type"] == "video/mp4"
    (made,) = (tmp_path / "out" / "report_clips").iterdir()
    film, _ = read_natural(made)
    assert film.video.shape == (25, 48, 64, 3) and len(film.audio) / film.sample_rate == pytest.approx(1, abs=0.1)
    stamp = made.stat().st_mtime_ns
    page(scored(("ours",), clips=clips), tmp_path)
    assert made.stat().st_mtime_ns == stamp  # not made again
    with browsing(tmp_path / "profile") as tab:
        tab.open(tmp_path / "out" / "report.html")
        tab.click(".sample .play")
        tab.until("Player.live && Player.live.time > 0.2")
        assert tab.ask("Player.live.open[0].media.videoWidth") == 64


def test_conversions_of_clips_that_are_gone_go_and_nothing_else(results, tmp_path):
    folder = tmp_path / "out" / "report_clips"
    folder.mkdir(parents=True)
    for name in ("0" * 32 + ".mp4", "mine.mp4"):
        (folder / name).write_bytes(b"")
    page(results, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["mine.mp4"]


def test_clips_carry_their_loudness_and_the_mouth_that_was_measured(results, tmp_path):
    curve = np.stack([np.linspace(0, 0.02, 9), np.zeros(9)])
    write_whole(feature_path(tmp_path / "out", "mouth", "ours", "r1"), packed(curve))
    first, second = (sample["clips"][0] for sample in data_of(page(results, tmp_path))["samples"][:2])
    assert "mouth" not in first
    assert list(base64.b64decode(second["mouth"])) == [round(255 * x / 8) for x in range(9)]
    assert len(base64.b64decode(second["wave"])) == 200 and second["seconds"] == pytest.approx(0.36, abs=0.05)
