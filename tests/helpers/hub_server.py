"""A stand-in of the hub on loopback: one repository, its tree and files, and what uploads of huggingface_hub ask for.

Uploads go as they do without Xet: what is to be committed is announced, large files are put by their sha256 and
verified, and a commit names them beside the small ones, which it holds. A file is large by its ending, as
.gitattributes say.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from ccl.storage.model_folder import save_model
from helpers.tiny import tiny_config, tiny_state

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"
OWNER = "user"  # whose token that is
LARGE = {".safetensors", ".mp4"}
KNOWN = {"apache-2.0", "mit", "other", "cc-by-nc-4.0"}  # licences, of which the hub knows many more

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Hub:
    """What it holds and was asked.

    Args:
        folder: of the repository's files.
        name: of the repository.
        revisions: of it, all of `commit`.
        private: it wants TOKEN.
        exists: whether it was made yet.
        broken: every answer is HTTP 500.
        breaks_at: part of a path, all of whose answers are HTTP 500.
        asked: paths, in order.
        commits: the sentence of each commit that was pushed, and its files.
        blobs: large files by their sha256, committed or not.
    """

    folder: Path
    name: str = "user/tiny"
    revisions: tuple[str, ...] = ("main", "v1")
    private: bool = False
    exists: bool = True
    broken: bool = False
    breaks_at: str | None = None
    commit: str = COMMIT
    asked: list[str] = field(default_factory=list)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def answer(self, path: str, token: str) -> Answer:
        """Status, headers and body for a path that is read."""
        self.asked.append(path)
        path = path.split("?")[0]
        if refused := self.refusal(path, token):
            return refused
        api, files = f"/api/models/{self.name}", f"/{self.name}/resolve/"
        if self.exists and (path == api or path.startswith(f"{api}/revision/")):
            if path.removeprefix(api).removeprefix("/revision/") not in ("", *self.revisions, self.commit):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            siblings = [{"rfilename": name} for name in self.files]
            return said({"id": self.name, "sha": self.commit, "private": self.private, "siblings": siblings})
        if self.exists and path == f"{api}/tree/{self.commit}":
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": self.etag(file)}
                for name, file in self.files.items()
            ]
            return said(tree)
        revision, _, name = path.removeprefix(files).partition("/")
        if path.startswith(files) and revision in (*self.revisions, self.commit) and name in self.files:
            file = self.files[name]
            kind = {".mp4": "video/mp4"}.get(file.suffix, "application/octet-stream")
            headers = {"X-Repo-Commit": self.commit, "ETag": f'"{self.etag(file)}"', "Content-Type": kind}
            return 200, headers, file.read_bytes()
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def take(self, path: str, token: str, body: bytes) -> Answer:
        """The same for a path that something is sent to."""
        self.asked.append(path)
        path = path.split("?")[0]
        if refused := self.refusal(path, token):
            return refused
        if path == "/api/validate-yaml":
            return self.validated(json.loads(body)["content"])
        if path.startswith("/lfs/") and path != "/lfs/verify":  # as of a store behind the hub: its address is signed
            oid = path.removeprefix("/lfs/")
            if hashlib.sha256(body).hexdigest() != oid:
                return 400, {}, b"{}"
            self.blobs[oid] = body
            return said({})
        if not token:
            return 401, {}, b"{}"
        if path == "/api/repos/create":
            return self.created(json.loads(body))
        if not path.lstrip("/").removeprefix("api/models/").startswith(f"{OWNER}/") and path != "/lfs/verify":
            return forbidden(path)
        if path == "/lfs/verify":
            asked = json.loads(body)
            held = len(self.blobs.get(asked["oid"], b"")) == asked["size"]
            return said({}) if held else (404, {}, b"{}")
        api = f"/api/models/{self.name}"
        if self.exists and path == f"{api}/preupload/main":
            files = [
                {"path": one["path"], "uploadMode": "lfs" if Path(one["path"]).suffix in LARGE else "regular"}
                | {"shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return said({"files": files})
        if self.exists and path == f"/{self.name}.git/info/lfs/objects/batch":
            return said({"transfer": "basic", "objects": [self.wanted(one) for one in json.loads(body)["objects"]]})
        if self.exists and path == f"{api}/commit/main":
            return self.committed([json.loads(line) for line in body.splitlines()])
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def refusal(self, path: str, token: str) -> Answer | None:
        if self.broken or (self.breaks_at is not None and self.breaks_at in path):
            return 500, {}, b"{}"
        if token and token != f"Bearer {TOKEN}":
            said = "Invalid credentials in Authorization header"
            return 401, {"X-Error-Message": said}, json.dumps({"error": said}).encode()
        if self.private and not token and not path.startswith("/lfs/"):
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        return None

    def validated(self, card: str) -> Answer:
        """Of a card's metadata the licence alone is looked at, by the hub's rule that it knows all of them."""
        licence = (yaml.safe_load(card.split("---\n")[1]) or {}).get("license") if card.startswith("---\n") else None
        if licence in (None, *KNOWN):
            return said({"errors": [], "warnings": []})
        return said({"errors": [{"message": f'"license" must be one of {sorted(KNOWN)}'}], "warnings": []}, 400)

    def created(self, asked: dict[str, Any]) -> Answer:
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        if not name.startswith(f"{OWNER}/"):
            return forbidden(name)
        url = {"url": f"{self.url}/{name}"}
        if self.exists and name == self.name:
            return said(url, 409)
        self.name, self.exists, self.private = name, True, asked.get("visibility") == "private"
        self.folder.mkdir(exist_ok=True)
        return said(url)

    def wanted(self, one: dict[str, Any]) -> dict[str, Any]:
        """What is to be done with a large file: nothing where its content is here."""
        if one["oid"] in self.blobs:
            return one
        put, verify = {"href": f"{self.url}/lfs/{one['oid']}"}, {"href": f"{self.url}/lfs/verify"}
        return {**one, "actions": {"upload": put, "verify": verify}}

    def committed(self, lines: list[dict[str, Any]]) -> Answer:
        """Write a commit's files, all or none."""
        new: dict[str, bytes] = {}
        for line in lines[1:]:
            value = line["value"]
            assert line["key"] in ("file", "lfsFile"), line["key"]
            if line["key"] == "lfsFile" and value["oid"] not in self.blobs:
                return 400, {}, b"{}"
            held = self.blobs[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
            new[value["path"]] = held
        for name, content in new.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)
        self.commits.append((lines[0]["value"]["summary"], sorted(new)))
        self.commit = hashlib.sha1(repr(self.commits).encode()).hexdigest()
        return said({"commitUrl": f"{self.url}/{self.name}/commit/{self.commit}", "commitOid": self.commit})

    @property
    def files(self) -> dict[str, Path]:
        """By their names in the repository."""
        return {str(file.relative_to(self.folder)): file for file in sorted(self.folder.rglob("*")) if file.is_file()}

    def etag(self, file: Path) -> str:
        """As git names a file of that content, nearly."""
        return hashlib.sha1(file.read_bytes()).hexdigest()


def said(value: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def forbidden(what: str) -> Answer:
    return 403, {"X-Error-Message": f"You don't have the rights to write {what}"}, b"{}"


@contextmanager
def serving_tiny(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that holds user/tiny, as `serving` has it; the working directory is an empty one."""
    save_model(home / "repository", tiny_config(), tiny_state())
    (home / "here").mkdir()
    monkeypatch.chdir(home / "here")
    with serving(Hub(home / "repository"), home, monkeypatch) as hub:
        yield hub


@contextmanager
def serving(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, at `hub.url`. This process asks it and no other hub, keeps what it fetches below `home`, and has no
    token.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.reply(hub.answer(self.path, self.token), body=False)

        def do_GET(self) -> None:
            self.reply(hub.answer(self.path, self.token))

        def do_POST(self) -> None:
            self.reply(hub.take(self.path, self.token, self.sent()))

        def do_PUT(self) -> None:
            self.do_POST()

        @property
        def token(self) -> str:
            return self.headers.get("Authorization", "")

        def sent(self) -> bytes:
            """The body of a request, whole or in chunks."""
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def reply(self, answer: Answer, *, body: bool = True) -> None:
            status, headers, content = answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)  # HF_ENDPOINT is read as the package is imported
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
