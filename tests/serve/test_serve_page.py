"""The page of `ccl serve`: over HTTP, as its own scripts speak to it, and in a browser."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccl.media import write_wav
from ccl.serve.page import UNFIT, Guarded
from ccl.serve.visitors import KEPT, Slowed
from helpers import ROOT
from helpers.browser import PATIENCE, Page, browsing, needs_browser
from helpers.page import Server, named

pytestmark = [
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed: pip install 'ccl[demo]'"),
    pytest.mark.timeout(400),
]
WAITING, UPLOAD, ALLOWED = 24, 200_000, "page.example"


def refused(ask: Callable[[], Any]) -> tuple[int, str]:
    """Status and text of the answer to what is not served."""
    with pytest.raises(urllib.error.HTTPError) as told:
        ask()
    with told.value as error:
        return error.code, error.read().decode()


@contextmanager
def serving(folder: Path, *more: str) -> Iterator[Server]:
    command = [
        sys.executable,
        str(ROOT / "tests/helpers/serving.py"),
        str(folder),
        str(WAITING),
        str(UPLOAD),
        ALLOWED,
        *more,
    ]
    (elsewhere := folder.parent / "tmp").mkdir()  # gradio serves files of the working and the temporary folder anyway
    environ = {**os.environ, "TMPDIR": str(elsewhere)}
    with (
        (folder.parent / "log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environ
        ) as process,
    ):
        assert process.stdin and process.stdout
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (folder.parent / "log").read_text()
        try:
            yield Server(url, folder)
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve") / "kept") as running:
        yield running


def files_of(message: dict[str, Any]) -> list[Path]:
    """The first clip and its record."""
    assert message["success"], message
    lists = [value for value in message["output"]["data"] if isinstance(value, list)]
    return [Path(file["path"]) for file in lists[0]]


def test_twenty_requests_at_once_are_served_in_order_without_loss(server: Server) -> None:
    for number in range(20):
        server.join(f"a man, number {number}", seed=number, session="many")
    ended = server.finished("many", 20)
    records = [json.loads(files_of(message)[1].read_text()) for message in ended]
    assert [record["seed"] for record in records] == list(range(20))
    assert [record["prompt"] for record in records] == [f"a man, number {number}" for number in range(20)]
    clips = [files_of(message)[0] for message in ended]
    assert len({clip.read_bytes() for clip in clips}) == 20
    assert [clip.stat().st_mtime_ns for clip in clips] == sorted(clip.stat().st_mtime_ns for clip in clips)


def test_twenty_clients_at_once_lose_nothing(server: Server) -> None:
    made: dict[int, int] = {}

    def ask(number: int) -> None:
        server.join("a woman", seed=number, session=f"client{number}")
        [message] = server.finished(f"client{number}", 1)
        made[number] = json.loads(files_of(message)[1].read_text())["seed"]

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(300)
    assert made == {number: number for number in range(20)}


def test_what_comes_when_the_queue_is_full_is_refused_in_words_and_the_rest_is_served(server: Server) -> None:
    joined = 0

    def fill() -> None:
        nonlocal joined
        for _ in range(WAITING + 10):
            server.join("a man", steps=1 if joined else 100, session="full")
            joined += 1

    assert "Queue is full" in refused(fill)[1] and joined >= WAITING
    assert len(server.finished("full", joined)) == joined


def test_no_request_goes_past_the_queue(server: Server) -> None:
    for path in ("gradio_api/run/generate", "gradio_api/api/generate"):
        assert refused(lambda path=path: server.post(path, {"data": []}))[0] == 404, path


def test_a_client_that_leaves_does_not_stop_the_next(server: Server) -> None:
    server.join("a man", steps=100, session="leaves")
    with urllib.request.urlopen(f"{server.url}gradio_api/queue/data?session_hash=leaves", timeout=PATIENCE) as lines:
        next(iter(lines))
    server.join("a woman", seed=5, session="stays")
    [message] = server.finished("stays", 1)
    assert json.loads(files_of(message)[1].read_text())["seed"] == 5


def refusal(server: Server, prompt: str = "a man", **given: Any) -> str:
    server.join(prompt, session="bad", **given)
    [message] = server.finished("bad", 1)
    assert not message["success"]
    return message["output"]["error"]


def test_broken_uploads_and_numbers_are_refused_in_words_and_the_next_is_served(server: Server, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom nothing else")
    (tmp_path / "notes.png").write_text("no picture")
    assert refusal(server, video=server.send(tmp_path / "broken.mp4")).startswith("broken.mp4: ")
    assert refusal(server, image=server.send(tmp_path / "notes.png")).startswith("notes.png: is not a picture")
    assert refusal(server, " ").startswith("the prompt is empty")
    assert refusal(server, wanted=["sound alone"]).startswith("'['sound alone']' cannot be made; there are: ")
    for wrong in ("x", float("nan"), 0.5, -1):
        assert refusal(server, seed=wrong).startswith(f"seed is {wrong}; here it must be a whole number from 0 to ")
    assert refusal(server, steps=101).startswith("steps is 101; here it must be a whole number from 1 to 100")
    write_wav(tmp_path / "voice.wav", np.sin(np.arange(6000) / 9).astype(np.float32) / 4)
    server.join("a man", session="good", audio=server.send(tmp_path / "voice.wav"))
    [message] = server.finished("good", 1)
    assert json.loads(files_of(message)[1].read_text())["audio"] == "voice.wav"


def test_files_come_from_uploads_alone(server: Server, tmp_path: Path) -> None:
    """Neither others of this machine nor addresses; and none that is too large."""
    assert "voice.wav" not in refusal(server, audio=named("/etc/passwd")) + str(list(server.folder.rglob("passwd")))
    assert not list(server.folder.rglob("passwd"))
    for strange in (named("x"), {"path": "x"}, "x", [named("x")], named("data:,x")):  # here, where the server runs
        assert refusal(server, audio=strange) == UNFIT
    assert "not named by an address" in refusal(server, audio=named("http://127.0.0.1:1/voice.wav"))
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(UPLOAD + 1))
    assert refused(lambda: server.send(large))[0] == 413
    for path in ("/etc/passwd", f"{server.folder}/../log", f"{server.folder}/uploads/../../log", "../../../etc/passwd"):
        assert refused(lambda path=path: server.get(f"gradio_api/file={path}"))[0] in (403, 404), path


def test_other_sites_in_a_visitors_browser_ask_nothing(server: Server, tmp_path: Path) -> None:
    """gradio answers them with the visitor's cookie, and lets them read it; a browser says whence a request comes."""
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}

    def ask(path: str, body: bytes | None = None, **headers: str) -> int:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers), timeout=PATIENCE) as told:
            return told.status

    for headers in (elsewhere, {**elsewhere, "Sec-Fetch-Site": "same-site"}):
        assert refused(lambda headers=headers: ask("config", **headers))[0] == 403
        form = {**headers, "Sec-Fetch-Mode": "navigate", "Content-Type": "multipart/form-data; boundary=m"}
        assert refused(lambda form=form: ask("gradio_api/upload", b"--m--", **form))[0] == 403
        assert ask("", **headers, **{"Sec-Fetch-Mode": "navigate"}) == 200  # a link to the page
    assert ask("config", **{"Sec-Fetch-Site": "same-origin"}) == ask("config") == 200


def test_a_page_of_this_machine_is_served_under_no_name_that_another_site_may_have_pointed_here(server: Server) -> None:
    def ask(host: str) -> int:
        with urllib.request.urlopen(urllib.request.Request(server.url, headers={"Host": host})) as told:
            return told.status

    for own in ("127.0.0.1:7860", "LOCALHOST", "localhost:80", "[::1]:7860", ALLOWED, f"{ALLOWED}:443"):
        assert ask(own) == 200, own
    for other in (
        "elsewhere.example",
        "127.0.0.1.elsewhere.example:7860",
        "localhost@elsewhere.example",
        "10.0.0.1",
        "[",
    ):
        status, said = refused(lambda other=other: ask(other))
        assert (
            status == 403 and "is not served under that name; `ccl serve --allow-host NAME`, or a password" in said
        ), other


def test_an_upload_for_which_the_disk_has_no_room_is_answered_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    answers = list[dict[str, Any]]()

    async def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/upload")

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    asyncio.run(Guarded(full)({"type": "http"}, None, send))
    said = capsys.readouterr().err
    assert answers[0]["status"] == 507 and os.strerror(errno.ENOSPC) in (told := answers[1]["body"].decode())
    assert "secret" not in told and said == f"ccl: /secret/upload: {os.strerror(errno.ENOSPC)}\n"


def test_an_upload_that_breaks_off_says_nothing_to_the_terminal() -> None:
    from starlette.requests import ClientDisconnect

    async def leaves(*_: Any) -> None:
        raise ClientDisconnect

    asyncio.run(Guarded(leaves)({"type": "http"}, None, None))  # else the server writes a traceback for each


def test_a_sent_file_is_used_where_it_lies_and_nothing_is_left_beside_it(server: Server, tmp_path: Path) -> None:
    write_wav(tmp_path / "voice.wav", np.zeros(6000, np.float32))
    server.join("a man", session="sent", audio=server.send(tmp_path / "voice.wav"))
    [message] = server.finished("sent", 1)
    assert message["success"] and not [path for path in (server.folder / "uploads").iterdir() if path.is_file()]


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path / "kept", "ann:right") as server:
        for path in ("config", "gradio_api/file=x", "gradio_api/queue/data?session_hash=s"):
            assert refused(lambda path=path: server.get(path))[0] == 401, path
        assert refused(lambda: server.send(tmp_path / "log"))[0] == 401
        named = urllib.request.Request(server.url, headers={"Host": "page.example"})
        assert urllib.request.urlopen(named, timeout=PATIENCE).status == 200  # who may enter is asked in another way
        login = server.url + "login"
        assert (
            refused(lambda: urllib.request.urlopen(login, b"username=ann&password=wrong", timeout=PATIENCE))[0] == 400
        )
        for _ in range(2):
            refused(lambda: urllib.request.urlopen(login, b"username=ann&password=wrong", timeout=PATIENCE))
        begun = time.monotonic()
        with urllib.request.urlopen(login, b"username=ann&password=right", timeout=PATIENCE) as answer:
            assert time.monotonic() - begun >= 1  # after the third wrong one
            cookie = answer.headers["Set-Cookie"]
        request = urllib.request.Request(server.url + "config", headers={"Cookie": cookie.split(";")[0]})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert json.load(answer)["dependencies"]


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, float]]]:
    """Ask for logins, pairs of address and whether it is right, all at once or in turn; status and seconds waited."""
    waited = list[float]()

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(0)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200 if scope["right"] else 400})

    monkeypatch.setattr("ccl.serve.visitors.sleep", sleep)
    slowed = Slowed(answer)

    def ask(*given: tuple[str, bool], at_once: bool = False) -> list[tuple[int, float]]:
        told = list[tuple[int, float]]()

        async def send(message: dict[str, Any]) -> None:
            if "status" in message:
                told.append((message["status"], waited.pop() if message["status"] != 429 else 0))

        async def run() -> None:
            each = [
                slowed(
                    {"method": "POST", "path": "/login/", "client": (address, 1), "right": right, "type": "http"},
                    None,
                    send,
                )
                for address, right in given
            ]
            if at_once:
                await asyncio.gather(*each)
            else:
                for one in each:
                    await one

        asyncio.run(run())
        assert len(slowed.failed) <= KEPT and not slowed.asking
        return told

    return ask


def test_who_guesses_a_password_waits_longer_each_time_up_to_a_minute_and_no_other(logins) -> None:
    waits = [seconds for _, seconds in logins(*[("10.0.0.1", False)] * 2000)]
    assert waits[:11] == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60] and set(waits[11:]) == {60}
    assert logins(("10.0.0.2", True)) == [(200, 0)]
    assert logins(("10.0.0.1", True), ("10.0.0.1", False)) == [(200, 60), (400, 0)]  # nobody is shut out


def test_of_many_guesses_at_once_from_one_address_one_is_looked_at(logins) -> None:
    told = logins(*[("10.0.0.1", False)] * 20, ("10.0.0.2", False), at_once=True)
    assert sorted(status for status, _ in told) == [400] * 2 + [429] * 19


def test_the_latest_addresses_that_guessed_are_remembered(logins) -> None:
    logins(*[("10.0.0.1", False)] * 3, *[(f"10.1.{n // 250}.{n % 250}", False) for n in range(KEPT - 1)])
    assert logins(("10.0.0.1", True)) == [(200, 1)]
    logins(*[("10.0.0.1", False)] * 3, *[(f"10.2.{n // 250}.{n % 250}", False) for n in range(KEPT)])
    assert logins(("10.0.0.1", True)) == [(200, 0)]


def visit(page: Page, url: str) -> None:
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page("Emulation.setDeviceMetricsOverride", **size)
    page("Page.navigate", url=url)
    page.until("['#prompt textarea', '#generate', '#both input'].every((one) => document.querySelector(one))")


def give(page: Page, field: str, path: Path) -> None:
    """Choose a file in a field, as a person does."""
    root = page("DOM.getDocument")["root"]["nodeId"]
    node = page("DOM.querySelector", nodeId=root, selector=f"#{field} input[type=file]")["nodeId"]
    page("DOM.setFileInputFiles", files=[str(path)], nodeId=node)
    page.until(f"document.querySelector('#{field}').innerText.includes({json.dumps(path.stem)})")


def fill(page: Page, selector: str, text: str) -> None:
    page.ask(f"document.querySelector({json.dumps(selector)}).focus()")
    page("Input.insertText", text=text)


@needs_browser
def test_in_a_browser_a_clip_is_made_and_played_and_a_broken_upload_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"nonsense")
    with browsing(tmp_path / "profile") as page:
        visit(page, server.url)
        fill(page, "#prompt textarea", 'a man says "hello"')
        page.click("#generate")
        page.until("document.querySelector('#clip0 video')?.currentTime > 0.1")
        assert page.ask("document.querySelector('#clip0 video').videoWidth") == 16
        page.until("document.querySelector('#curves0 svg') !== null")
        page.until("document.querySelector('#files0').innerText.includes('.json')")
        assert page.ask("document.querySelector('#clip1')?.offsetParent ?? null") is None
        elsewhere = (
            f"performance.getEntriesByType('resource').map(e => e.name).filter(u => !u.startsWith('{server.url}')"
        )
        assert page.ask(f"{elsewhere} && !/^(data|blob):/.test(u))") == []

        page.click("#both input")
        page.until("document.body.innerText.includes('Settings of the second clip')")  # the button has moved down
        page.click("#generate")
        page.until("document.querySelector('#clip1 video')?.currentTime > 0.1")
        assert page.ask("document.querySelector('#clip1').offsetParent !== null")

        page.ask("[...document.querySelectorAll('button')].find(b => b.innerText.startsWith('Given')).click()")
        page.until("document.querySelector('#audio input[type=file]') !== null")
        give(page, "audio", tmp_path / "broken.wav")
        page.click("#generate")
        page.until("document.body.innerText.includes('broken.wav: ')")
