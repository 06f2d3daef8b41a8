"""A stand-in of the hub on loopback, as far as a download asks: repository, tree of a commit, and its files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"


@dataclass
class Hub:
    """What it holds and was asked: `revisions` of the one repository, all of COMMIT; a private one wants TOKEN."""

    folder: Path
    name: str = "user/tiny"
    revisions: tuple[str, ...] = ("main", "v1")
    private: bool = False
    broken: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, token: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        self.asked.append(path)
        path = path.split("?")[0]
        if self.broken:
            return 500, {}, b"{}"
        if token and token != f"Bearer {TOKEN}":
            said = "Invalid credentials in Authorization header"
            return 401, {"X-Error-Message": said}, json.dumps({"error": said}).encode()
        absent = {"X-Error-Code": "RepoNotFound"}
        if self.private and not token:
            return 401, absent, b"{}"
        api, files = f"/api/models/{self.name}", f"/{self.name}/resolve/{COMMIT}/"
        if path == api or path.startswith(f"{api}/revision/"):
            if path.removeprefix(api).removeprefix("/revision/") not in ("", *self.revisions, COMMIT):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            return 200, {}, json.dumps({"id": self.name, "sha": COMMIT, "siblings": []}).encode()
        if path == f"{api}/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": self.etag(file)}
                for file in self.folder.iterdir()
            ]
            return 200, {}, json.dumps(tree).encode()
        if path.startswith(files) and (file := self.folder / path.removeprefix(files)).is_file():
            return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{self.etag(file)}"'}, file.read_bytes()
        return 404, absent, b"{}"

    def etag(self, file: Path) -> str:
        """As git names a file of that content, nearly."""
        return hashlib.sha1(file.read_bytes()).hexdigest()


def asked_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """This process asks that hub and no other, keeps what it fetches below `home`, and has no token."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)  # HF_ENDPOINT is read as the package is imported
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The stand-in, at `hub.url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.reply(body=False)

        def do_GET(self) -> None:
            self.reply(body=True)

        def reply(self, *, body: bool) -> None:
            status, headers, content = hub.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
