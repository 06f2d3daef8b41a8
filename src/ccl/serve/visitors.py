"""Who asks something of the page, as far as it is known before they are let in."""

from __future__ import annotations

import ipaddress
from asyncio import sleep
from typing import Any
from urllib.parse import urlsplit

FREE = 3  # failed logins of an address before the next waits
LONGEST = 60.0  # seconds that one waits: nobody is shut out, whoever else asks from the same address
KEPT = 1000  # addresses of which failed logins are remembered, the latest


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def hostname(host: str) -> str:
    """What a Host header names, in small letters and without its port; "" where it names nothing."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Slowed:
    """Around the server: whoever guesses its password waits, twice as long after each failure.

    Logins of one address are looked at one at a time, else many sent at once would all wait no longer than one. A right
    one ends the waiting.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.failed: dict[str, int] = {}  # logins by address, the latest last
        self.asking: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("method") != "POST" or scope["path"].rstrip("/") != "/login":
            await self.app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]

        async def sent(message: dict[str, Any]) -> None:
            if message.get("status") == 200:
                self.failed.pop(address, None)
            elif message.get("status") == 400:
                self.failed[address] = self.failed.pop(address, 0) + 1
                if len(self.failed) > KEPT:
                    del self.failed[next(iter(self.failed))]
            await send(message)

        if address in self.asking:
            from starlette.responses import PlainTextResponse

            await PlainTextResponse("another login from this address is waiting", 429)(scope, receive, send)
            return
        self.asking.add(address)
        try:
            await sleep(self.wait(address))
            await self.app(scope, receive, sent)
        finally:
            self.asking.discard(address)

    def wait(self, address: str) -> float:
        """Seconds before its next login is looked at."""
        more = self.failed.get(address, 0) - FREE
        return min(2.0 ** min(more, 10), LONGEST) if more >= 0 else 0.0
