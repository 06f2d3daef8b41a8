"""A page in headless Chromium, driven over its debugging pipe: time passes, keys are pressed, pictures are taken."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no chromium or google-chrome to open the page in")
PATIENCE = 150.0  # seconds that a page may take: a busy machine's, and less than a test may, which says what never came


class Page:
    """One tab. Whatever its scripts throw is raised."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._rest, self._number = send, receive, b"", 0
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._given = ""
        self("Page.enable")

    _session: str | None = None

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._receive, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def tab(self) -> Page:
        """Another tab of this browser."""
        return Page(self._send, self._receive)

    def open(self, path: Path, fragment: str = "", width: int = 1200, height: int = 900) -> None:
        """Load a file in a window of this size."""
        if self.ask("location.protocol === 'file:'"):
            self.remember()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self("Emulation.setDeviceMetricsOverride", **size)
        self.ask("window.before_loading = true")
        # To another fragment of the same page nothing is loaded.
        if "loaderId" not in self("Page.navigate", url=path.resolve().as_uri() + fragment):
            self("Page.reload")
        self.until(
            "window.before_loading === undefined && document.readyState === 'complete'"
            " && document.documentElement.dataset.ready !== undefined"
        )

    def remember(self, stored: dict[str, str] | None = None) -> dict[str, str]:
        """Give the next pages what this one has stored, or `stored`; it is returned.

        A browser hands what a page has stored to another process, and that to the disk, some time later: a page that
        is loaded anew at once, or a browser that is closed, may have lost the last of it on a busy machine.
        """
        if stored is None:
            stored = self.ask("({...localStorage})")
        if self._given:
            self("Page.removeScriptToEvaluateOnNewDocument", identifier=self._given)
        source = f"if (location.protocol === 'file:') Object.assign(localStorage, {json.dumps(stored)})"
        self._given = self("Page.addScriptToEvaluateOnNewDocument", source=source)["identifier"]
        return stored

    def ask(self, expression: str) -> Any:
        """What an expression is; of a promise what it becomes."""
        answer = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until it holds."""
        end = time.monotonic() + PATIENCE
        while not self.ask(condition):
            assert time.monotonic() < end, f"it never came true: {condition}"
            time.sleep(0.03)

    def press(self, key: str) -> None:
        """A key, down and up, as a person's."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {}))

    def click(self, selector: str) -> None:
        """The middle of an element, as a person's click."""
        self.ask(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        x, y = self.ask(
            f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def shot(self, path: Path, whole: bool = False) -> Path:
        """A picture of what is seen, or of the whole page."""
        data = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
        return path


@contextmanager
def browsing(profile: Path, downloads: Path | None = None) -> Iterator[Page]:
    """A browser for the time of a test.

    Args:
        profile: folder of its own, where it keeps what pages want remembered.
        downloads: folder of what is saved.
    """
    (theirs_in, send), (receive, theirs_out) = os.pipe(), os.pipe()

    def pipes() -> None:  # it reads from 3 and writes to 4
        held = os.dup(theirs_in), os.dup(theirs_out)  # these may be 3 and 4 themselves, and would be closed
        os.dup2(held[0], 3), os.dup2(held[1], 4)

    options = ("--remote-debugging-pipe", "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(BROWSER), *QUIET, *options], preexec_fn=pipes, close_fds=False, **quiet)
    os.close(theirs_in), os.close(theirs_out)
    try:
        page = Page(send, receive)
        if downloads is not None:
            page("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        yield page
        page("Browser.close")  # a killed one may forget
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(send), os.close(receive)
