"""Files whole or not at all, one writer a folder, and names in whatever goes wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from jsonargparse._loaders_dumpers import yaml_load

from ccl import files
from ccl.files import (
    LOCK,
    MARK,
    FileError,
    machine_trouble,
    one_writer,
    own_folder,
    plain_name,
    reading,
    replacing,
    replacing_path,
    sha256,
    sums,
    sweep,
    write_whole,
)
from ccl.files.sums import check_sums, write_sums
from ccl.files.yamltext import compose, read_yaml


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "one")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"two")
        raise RuntimeError
    assert path.read_text() == "one" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_as_long_as_a_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".mp4")
    with replacing_path(path) as partial:
        assert partial.suffix == ".mp4" and partial.name.startswith(MARK)
        partial.write_bytes(b"x")
    assert path.read_bytes() == b"x"


def test_temporary_names_are_nobody_elses(tmp_path: Path) -> None:
    with replacing_path(tmp_path / "a") as one, replacing_path(tmp_path / "a") as other:
        assert one != other
        one.touch(), other.touch()


def test_sweeping_removes_files_and_folders_of_a_kill(tmp_path: Path) -> None:
    (tmp_path / f"{MARK}1-new-model").mkdir()
    (tmp_path / f"{MARK}1-new-model/weights").touch()
    (tmp_path / f"{MARK}1-a.tar").touch()
    (tmp_path / f"{MARK}link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_a_killed_writer_lets_the_next_one_in_though_its_worker_lives(tmp_path: Path) -> None:
    program = f"""
import os, time
from pathlib import Path
from ccl.files import one_writer
with one_writer(Path({str(tmp_path)!r})):
    child = os.fork()
    if child == 0:  # says itself that it runs: before, it may not have let go of the lock yet
        print(os.getpid(), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            with (
                pytest.raises(FileError, match=rf"written by another process \({parent.pid} on "),
                one_writer(tmp_path),
            ):
                pass
            parent.kill()
            parent.wait()
            os.kill(child, 0)  # still alive
            with one_writer(tmp_path), one_writer(tmp_path):
                pass
        finally:
            os.kill(child, 9)
            parent.kill()


def test_a_lock_that_leads_elsewhere_empties_nothing(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("thesis")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(FileError, match=rf"^{tmp_path}/theirs/.lock leads elsewhere"), one_writer(tmp_path / "theirs"):
        pass
    assert (tmp_path / "victim").read_text() == "thesis"


def test_a_folder_that_cannot_be_written_is_named_and_not_its_lock(tmp_path: Path) -> None:
    (tmp_path / "a" / LOCK).mkdir(parents=True)  # a way not to be writable that root has too
    with pytest.raises(OSError, match="Is a directory") as caught, one_writer(tmp_path / "a"):
        pass
    assert caught.value.filename == str(tmp_path / "a")


@pytest.fixture
def temporaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def killed() -> Path:
    """A folder of a process that was killed as it worked in it."""
    program = f"""
import os, signal, tempfile
from ccl.files import own_folder
tempfile.tempdir = {tempfile.gettempdir()!r}
with own_folder("ccl-mine-") as folder:
    (folder / "clip.mp4").touch()
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    said = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False).stdout
    return Path(said.strip())


def test_a_folder_of_ones_own_goes_at_its_end_and_a_killed_ones_with_the_next(temporaries: Path) -> None:
    left = killed()
    assert (left / "clip.mp4").is_file()
    with own_folder("ccl-mine-") as first:
        assert not left.exists()
        (first / "clip.mp4").touch()
        (first / "clips").mkdir()
        with own_folder("ccl-mine-") as second:
            assert first.is_dir() and first != second
    assert not any(temporaries.iterdir())


def test_a_folder_that_a_user_named_or_copied_is_nobodys_to_remove(temporaries: Path) -> None:
    """As `--folder /tmp/ccl-serve-mine`, whose server was killed."""
    left = killed()
    named, copied, planted = (temporaries / f"ccl-mine-{name}" for name in ("named", "copied", "planted"))
    shutil.copytree(left, copied)
    named.mkdir()
    (named / LOCK).write_text(f"1 on {socket.gethostname()}\n")
    planted.symlink_to(named)
    with own_folder("ccl-mine-"):
        pass
    assert sorted(temporaries.iterdir()) == [copied, named, planted]


def test_another_machines_folder_on_a_shared_disk_is_left_to_it(
    temporaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = killed()
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with own_folder("ccl-mine-"):
        assert left.exists()


def test_a_file_system_without_locks_keeps_what_may_be_in_use(
    temporaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    left = killed()  # as far as that system says it may live
    monkeypatch.setattr("fcntl.flock", unknown)
    with own_folder("ccl-mine-") as folder:
        assert left.is_dir() and folder.is_dir()
    assert list(temporaries.iterdir()) == [left]


def test_a_folder_whose_removal_was_cut_short_is_removed_by_the_next(
    temporaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), own_folder("ccl-mine-") as first:
        (first / "model").mkdir()
        patched.setattr("ccl.files.lock.rmtree", cut)
    assert (first / "model").is_dir()
    with own_folder("ccl-mine-"):
        assert not first.exists()


def test_processes_that_begin_at_once_keep_their_folders(temporaries: Path) -> None:
    program = f"""
import tempfile
from ccl.files import own_folder
tempfile.tempdir = {str(temporaries)!r}
for _ in range(300):
    with own_folder("ccl-mine-") as folder:
        (folder / "clip.mp4").touch()
        assert (folder / "clip.mp4").exists()
"""
    several = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [one.wait() for one in several] == [0] * 4
    assert not any(temporaries.iterdir())


def test_a_lock_goes_with_its_writer_and_never_holds_two(tmp_path: Path) -> None:
    """Many take turns; a lock file that is taken away while another waits for it is not taken for the lock."""
    program = f"""
import time
from pathlib import Path
from ccl.files import one_writer
count = Path({str(tmp_path)!r}, "count")
for _ in range(50):
    with one_writer(count.parent, wait=True):
        before = int(count.read_text())
        time.sleep(0.0005)
        count.write_text(str(before + 1))
"""
    (tmp_path / "count").write_text("0")
    others = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150" and [p.name for p in tmp_path.iterdir()] == ["count"]


@pytest.mark.parametrize(
    "error", [KeyError("a"), TypeError("no"), RuntimeError(""), BaseExceptionGroup("x", [OSError()])]
)
def test_whatever_a_reader_raises_names_the_file(error: BaseException) -> None:
    with pytest.raises(FileError, match=r"^f\.json cannot be read as a record \(\S"), reading("f.json", "a record"):
        raise error


def test_an_error_that_names_the_file_is_left_as_it_is() -> None:
    with pytest.raises(ValueError, match=r"^f\.json, line 2: no$"), reading("f.json", "a record"):
        raise ValueError("f.json, line 2: no")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_the_machines_trouble_is_not_the_files(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, reading("f.json", "a record"):
        raise error
    assert machine_trouble(raised.value)
    wrapped = ValueError("clip cannot be read")
    wrapped.__cause__ = error
    assert machine_trouble(wrapped) and not machine_trouble(FileNotFoundError(errno.ENOENT, "no"))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        KeyError("CUDA error"),
        OSError(errno.ENOENT, "no", "out of memory.mp4"),
        TypeError(),
    ],
)
def test_what_quotes_a_user_is_not_the_machines_trouble(error: Exception) -> None:
    assert not machine_trouble(error)
    assert machine_trouble(RuntimeError("CUDA error: device-side assert triggered"))


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "a\\b", "..", ".", "", ".hidden", "a\0b", "a\nb", "x" * 256, 7, None]
)
def test_names_from_files_are_plain(name: object) -> None:
    with pytest.raises(FileError, match=r"^index\.json names .* not a plain file name$"):
        plain_name(name, "index.json")
    assert plain_name("000 ü.tar", "index.json") == "000 ü.tar"


def test_a_tree_is_that_of_what_its_file_holds_now(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    for keys in (("a", "b"), ("b",), ("a", "b")):
        file.write_text("".join(f"{key}: 1\n" for key in keys))
        assert tuple(key.value for key, _ in compose(file).value) == keys


def test_sums_follow_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    first = sha256(tmp_path / "a")
    assert first == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "a").write_bytes(b"abcd")
    assert sha256(tmp_path / "a") != first


def test_a_large_files_sum_is_read_once_until_its_size_or_time_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sums, "LARGE", 4)
    path, old = tmp_path / "weights", (10**9, 10**9)

    def summed() -> str:
        sums._sha256.cache_clear()  # as of another process
        return files.sha256(path)

    def right(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    path.write_bytes(b"young")
    assert summed() == right(b"young") and not (tmp_path / "cache").exists(), "another write may have the same time"
    path.write_bytes(b"whole")
    os.utime(path, old)
    assert summed() == right(b"whole")
    path.write_bytes(b"whose")
    os.utime(path, old)
    assert summed() == right(b"whole"), "it is not read again, nor where it has another name"
    path = path.rename(tmp_path / "renamed")
    assert summed() == right(b"whole") and files.sha256_now(path) == right(b"whose"), "what is asked for now is read"
    os.utime(path, (old[0] + 1, old[1] + 1))
    assert summed() == right(b"whose")
    for kept in (tmp_path / "cache" / "ccl" / "sums").iterdir():
        kept.write_text("damaged")
    assert summed() == right(b"whose")


def test_a_flipped_bit_of_a_sharded_checkpoint_is_found_though_its_time_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sums, "LARGE", 1)
    part, marker = tmp_path / "step" / "__0_0.distcp", tmp_path / "complete"
    part.parent.mkdir()
    part.write_bytes(b"whole")
    os.utime(part, (10**9, 10**9))
    files.sha256(part)
    marker.write_text(write_sums({part.name: files.sha256_now(part)}))
    check_sums(part.parent, marker)
    part.write_bytes(b"whose")
    os.utime(part, (10**9, 10**9))
    with pytest.raises(FileError, match="is damaged"):
        check_sums(part.parent, marker)


def test_a_number_with_an_exponent_is_a_number_as_to_jsonargparse(tmp_path: Path) -> None:
    numbers = ["1e-3", "1e5", "-2E4", "1.5e3", "1_0e2", "1.0e-3", ".5e-3"]
    texts = ["1e", "e5", "12e4x", "0x1e5g", "2026-11-28"]
    (tmp_path / "a.yaml").write_text(f"numbers: [{', '.join(numbers)}]\ntexts: [{', '.join(texts)}]\n")
    assert read_yaml(tmp_path / "a.yaml") == {"numbers": [float(one) for one in numbers], "texts": texts}
    assert yaml_load(f"[{', '.join([*numbers, *texts])}]") == [*(float(one) for one in numbers), *texts]
