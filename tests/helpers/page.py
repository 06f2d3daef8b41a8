"""The page of `ccl serve` over HTTP, as its own scripts speak to it."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ccl.rows import MEDIA
from ccl.serve import OWN
from helpers.browser import PATIENCE

OTHER = [OWN, "", "", "", "", 1, 0]  # settings of a second clip


@dataclass
class Server:
    """A running page.

    Args:
        url: of it.
        folder: of its files.
    """

    url: str
    folder: Path

    def join(
        self,
        prompt: str,
        seed: int = 0,
        steps: int = 1,
        session: str = "s",
        both: bool = False,
        wanted: Any = "pictures and sound",
        **given: Any,
    ) -> str:
        """Ask for a clip, or for two; the event's number. HTTPError where it is refused at once."""
        side = [OWN, "", "", "", "", steps, seed]
        data = [prompt, "", wanted, "", both, *(given.get(key) for key in MEDIA), *side, *OTHER]
        answer = self.post("gradio_api/queue/join", {"data": data, "fn_index": self.event, "session_hash": session})
        return answer["event_id"]

    def post(self, path: str, value: Any, **headers: str) -> Any:
        body = json.dumps(value).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return answer.read()

    @cached_property
    def event(self) -> int:
        """The number of the event `generate`."""
        events = json.loads(self.get("config"))["dependencies"]
        return next(event["id"] for event in events if event["api_name"] == "generate")

    def finished(self, session: str, count: int) -> list[dict[str, Any]]:
        """What becomes of so many events of a session, in the order in which they end."""
        found = []
        with urllib.request.urlopen(
            f"{self.url}gradio_api/queue/data?session_hash={session}", timeout=PATIENCE
        ) as lines:
            for line in lines:
                message = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
                if message.get("msg") == "process_completed":
                    found.append(message)
                if len(found) == count:
                    return found
        raise AssertionError(f"{len(found)} of {count} events ended")

    def send(self, path: Path) -> dict[str, Any]:
        """Upload a file; how an event names it."""
        mark = "------mark"
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'.encode()
        body = head + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}gradio_api/upload", body, kind), timeout=PATIENCE
        ) as answer:
            return named(json.load(answer)[0])


def named(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}
