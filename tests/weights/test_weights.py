"""Weights are found, fetched with resume, checked, and never unpickled."""

import hashlib
import http.server
import io
import json
import pickle
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ccl.cli import main
from ccl.files import one_writer
from ccl.weights import catalogue as weights
from ccl.weights.catalogue import TABLE, MissingWeights, Weights
from ccl.weights.fetch import fault, fetch
from helpers.forked import holding

DATA = bytes(range(256)) * 20_000
SHA = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Server(http.server.BaseHTTPRequestHandler):
    """Serves DATA at /good, half of it at /cut (once), other bytes at /bad, a tar file at /archive, a zip at /wheel."""

    asked: list[str | None]
    ranges = True
    says = True  # what a range is of

    def do_GET(self) -> None:
        body = {"/good": DATA, "/cut": DATA, "/bad": b"x" * len(DATA), "/archive": archive(), "/wheel": wheel()}.get(
            self.path
        )
        if body is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and type(self).ranges else 0
        if start >= len(body):
            self.send_response(416)
            if self.says:
                self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        start = 0 if self.path == "/bad" else start  # it sends another part than was asked for
        self.send_response(206 if wanted and type(self).ranges else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if wanted and type(self).ranges and self.says:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        cut = self.path == "/cut" and not wanted
        self.wfile.write(body[start : len(body) // 2 if cut else None])

    def log_message(self, *_: object) -> None:
        pass


def archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name in ("../../evil", "inner/w.bin"):
            info = tarfile.TarInfo(name)
            info.size = len(DATA)
            tar.addfile(info, io.BytesIO(DATA))
    return file.getvalue()


def wheel() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as held:
        for name in ("../../evil", "inner/w.bin"):
            held.writestr(name, DATA)
    return file.getvalue()


@pytest.fixture
def host():
    Server.asked, Server.ranges, Server.says = [], True, True
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def entry(*sources: str, digest: str = SHA, size: int = len(DATA)) -> Weights:
    return Weights("thing", "thing.bin", "a test", 5.1, "MIT", sources, digest, size)


def test_a_file_is_fetched_once_and_whole(host, tmp_path):
    seen: list[tuple[int, int]] = []
    path = fetch(entry(f"{host}/good"), folder=tmp_path, progress=lambda *at: seen.append(at))
    assert path.read_bytes() == DATA and seen[-1] == (len(DATA), len(DATA))
    fetch(entry(f"{host}/good"), folder=tmp_path)
    assert len(Server.asked) == 1


def test_a_cut_download_goes_on_where_it_stopped(host, tmp_path):
    with pytest.raises(ValueError, match="could not be fetched"):
        fetch(entry(f"{host}/cut"), folder=tmp_path)
    assert not (tmp_path / "thing.bin").exists()
    assert fetch(entry(f"{host}/cut"), folder=tmp_path).read_bytes() == DATA
    assert Server.asked == [None, f"bytes={len(DATA) // 2}-"]


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("extra", [0, 1, 5000])
def test_what_is_no_beginning_of_the_file_never_becomes_it(host, tmp_path, extra, says):
    """No digest and no size is known; the server answers that nothing follows what is here (416)."""
    Server.says = says
    (tmp_path / "thing.bin.part").write_bytes(b"x" * extra + DATA)
    path = fetch(entry(f"{host}/good", digest="", size=0), folder=tmp_path)
    assert path.read_bytes() == DATA
    assert Server.asked == [f"bytes={len(DATA) + extra}-", None][: 1 if says and not extra else 2]


def test_another_part_than_was_asked_for_is_not_joined(host, tmp_path):
    (tmp_path / "thing.bin.part").write_bytes(b"x" * 100)
    path = fetch(entry(f"{host}/bad", digest="", size=0), folder=tmp_path)
    assert path.read_bytes() == b"x" * len(DATA) and Server.asked == ["bytes=100-", None]


def test_two_that_fetch_into_one_folder_take_turns(host, tmp_path):
    """The other one has fetched the file when it lets go."""
    with holding(one_writer, tmp_path) as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fetch, entry(f"{host}/good"), folder=tmp_path)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        (tmp_path / "thing.bin").write_bytes(DATA)
        other.let_go()
        assert waiting.result(20) == tmp_path / "thing.bin" and Server.asked == []


def test_a_server_without_ranges_starts_anew(host, tmp_path):
    Server.ranges = False
    (tmp_path / "thing.bin.part").write_bytes(b"old bytes")
    assert fetch(entry(f"{host}/good"), folder=tmp_path).read_bytes() == DATA


def test_another_file_is_refused_and_the_next_source_taken(host, tmp_path):
    assert fetch(entry(f"{host}/bad", f"{host}/good"), folder=tmp_path).read_bytes() == DATA
    with pytest.raises(ValueError, match=r"sha256 is .* is right"):
        fetch(entry(f"{host}/bad"), folder=tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("kind", ["archive", "wheel"])
def test_a_member_of_an_archive_is_read_and_nothing_else_is_written(host, tmp_path, kind):
    with pytest.raises(ValueError, match="could not be fetched"):
        fetch(entry(f"{host}/{kind}!inner/none.bin"), folder=tmp_path / "none")
    path = fetch(entry(f"{host}/{kind}!inner/w.bin"), folder=tmp_path / "a" / "b")
    assert path.read_bytes() == DATA
    assert [p for p in (tmp_path / "a").rglob("*") if p.is_file()] == [path]


def test_no_way_to_a_source_is_one_sentence_that_says_what_else_helps(tmp_path):
    with pytest.raises(ValueError, match=r"thing.bin \(5.1 MB\) could not be fetched .* --weights thing=FILE"):
        fetch(entry("http://127.0.0.1:9/x"), folder=tmp_path)


def test_fault_tells_size_before_digest(tmp_path):
    (tmp_path / "f").write_bytes(b"123")
    assert "3 bytes" in fault(entry("x"), tmp_path / "f")
    assert "sha256" in fault(entry("x", size=0), tmp_path / "f")
    assert fault(entry("x", digest="", size=0), tmp_path / "f") == ""


def test_missing_weights_name_size_licence_and_command(tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"IB-Score.*4.8 GB, CC-BY-NC.*`ccl weights fetch imagebind`"):
        weights.locate("imagebind")
    (tmp_path / TABLE["imagebind"].file).write_bytes(b"")
    assert weights.locate("imagebind") == tmp_path / TABLE["imagebind"].file


def test_a_file_given_by_hand_goes_first_within_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    own = tmp_path / "own.pth"
    own.write_bytes(b"")
    with weights.named_files():
        weights.use("syncnet", own)
        assert weights.locate("syncnet") == own
        with pytest.raises(ValueError, match="did you mean 'syncnet'"):
            weights.use("sincnet", own)
        with pytest.raises(ValueError, match="there is no file"):
            weights.use("syncnet", tmp_path / "gone")
    with pytest.raises(MissingWeights):
        weights.locate("syncnet")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    torch.save({"a": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as weights"):
            weights.read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


NO_WEIGHTS = {
    "a pickle of a list": (lambda path: torch.save([1, 2], path), "it holds a list, not tensors by name"),
    "text": (lambda path: path.write_text("hello"), "cannot be read as weights"),
    "an empty file": (lambda path: path.write_bytes(b""), "w.pt is an empty file"),
    "protocol 4": (lambda path: path.write_bytes(pickle.dumps(print, protocol=4)), "could be code"),
}


@pytest.mark.parametrize("what", NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_told_in_words(what, tmp_path):
    write, sentence = NO_WEIGHTS[what]
    write(path := tmp_path / "w.pt")
    with pytest.raises(ValueError, match=sentence) as told:
        weights.read(path)
    assert str(path) in str(told.value)
    assert "(101)" not in str(told.value) and "PyTorch" not in str(told.value)


def test_a_repository_is_there_when_all_of_it_is(tmp_path, monkeypatch):
    entry = Weights("big", "big", "tests", 1.0, "MIT", ("hf:someone/big",))

    def snapshot(name, local_dir):
        local_dir.mkdir(exist_ok=True)
        (local_dir / name.replace("/", "-")).touch()
        if fail:
            raise OSError("the connection ended")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: io.BytesIO())
    fail = True
    with pytest.raises(ValueError, match=rf"someone/big on another machine and put it at {tmp_path}/big"):
        fetch(entry, folder=tmp_path)
    assert not (tmp_path / "big").exists() and (tmp_path / "big.part").is_dir()
    fail = False
    assert fetch(entry, folder=tmp_path) == tmp_path / "big" == next(tmp_path.iterdir())
    fail = True
    assert fetch(entry, folder=tmp_path) == tmp_path / "big"  # not fetched again


def test_every_entry_says_where_it_comes_from():
    for name, known in TABLE.items():
        assert known.name == name and known.licence and (known.source or known.package)
        assert not known.digest or known.digest.split(":")[0] in ("sha256", "md5")
    assert len({known.file for known in TABLE.values()}) == len(TABLE)


def test_non_commercial_licences_are_said_before_fetching(capsys):
    assert main(["weights", "fetch", "imagebind"]) == 2
    assert "CC-BY-NC-SA" in capsys.readouterr().err


def test_a_script_reads_which_weights_are_here_and_under_which_licence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    file = tmp_path / weights.TABLE["syncnet"].file
    file.write_bytes(b"x")
    assert main(["weights", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(found) == list(weights.TABLE)
    assert found["syncnet"]["path"] == str(file) and found["imagebind"]["path"] is None
    assert found["imagebind"]["non_commercial"] and "CC-BY-NC" in found["imagebind"]["licence"]


def test_list_and_verify_tell_what_is_here(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    (tmp_path / TABLE["yunet"].file).write_bytes(b"no network")
    assert main(["weights", "list"]) == 0
    assert "synchformer" in capsys.readouterr().out
    assert main(["weights", "verify"]) == 1
    assert "yunet: it has 10 bytes" in capsys.readouterr().out
