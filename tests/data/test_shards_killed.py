"""After a kill at any moment the same call goes on and ends with the same bytes; what the machine did is no result."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from socket import gethostname
from typing import Any

import pytest

from ccl.data import WorldData, datamodule
from ccl.data.encode import encode_shards
from ccl.data.index import INDEX, PARTIAL
from ccl.data.sources import Source
from ccl.data.write import write_shards
from ccl.files import LOCK, MARK, FileError, MachineError, one_writer
from ccl.media import MediaError
from helpers.encoded import contents, make_codec
from helpers.fakes import GRID
from helpers.forked import holding
from helpers.tiny_clips import tiny_clip, tiny_sources
from helpers.tiny_encoders import FrozenText

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """Nothing of what was to follow happens, not even what is left to be cleaned up."""


class Death:
    """From its n-th change of a file in a folder on, this process can change nothing more."""

    def __init__(self) -> None:
        self.folder, self.left = "", -1
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.folder or not (event in CHANGES or (event == "open" and isinstance(args[2], int))):
            return
        if event == "open" and not args[2] & WRITING:
            return
        if isinstance(args[0], str | os.PathLike) and os.fspath(args[0]).startswith(self.folder):
            self.left -= 1
            if self.left < 0:
                raise Killed

    def survives(self, work: Callable[[Path], Any], out: Path, changes: int) -> bool:
        """Whether the work ends within so many changes."""
        self.folder, self.left = str(out), changes
        try:
            work(out)
        except Killed:
            return False
        finally:
            self.folder = ""
        return True


@pytest.fixture(scope="module")
def death() -> Iterator[Death]:
    death = Death()  # an audit hook stays; without a folder it does nothing
    yield death
    death.folder = ""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("killed") / "clips"
    write_shards(tiny_sources(3, GRID), out, GRID, shard_size=2)
    return out


def make(out: Path, workers: int = 0) -> Any:
    mute = Source("mute", lambda: replace(tiny_clip(0, GRID), audio=None))
    return write_shards([*tiny_sources(3, GRID), mute], out, GRID, shard_size=2, workers=workers)


def make_buckets(out: Path) -> Any:
    tall = replace(GRID, height=32)
    sources = [*tiny_sources(2, GRID), *(replace(s, id=f"tall-{s.id}") for s in tiny_sources(1, tall))]
    return write_shards(sources, out, [GRID, tall], shard_size=1)


def encode(clips: Path, out: Path) -> Any:
    return encode_shards(clips, out, make_codec(), GRID, text=FrozenText())


@pytest.mark.parametrize("kind", ["make", "make_buckets", "encode"])
def test_a_kill_before_any_change_of_a_file_leaves_what_goes_on(
    death: Death, clips: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccl.data.write.write_clip", lambda clip, file: file.write(clip.prompt.encode()))  # in no time
    work = {"make": make, "make_buckets": make_buckets, "encode": lambda out: encode(clips, out)}[kind]
    work(tmp_path / "whole")
    whole, moment = contents(tmp_path / "whole"), 0
    while not death.survives(work, out := tmp_path / f"killed-{moment:03d}", moment):
        if moment % 3 == 2:  # and once more while it goes on
            death.survives(work, out, Random(f"{kind} {moment}").randrange(12))
        work(out)
        assert contents(out) == whole, f"killed before change {moment}"
        moment += 2 if kind == "make_buckets" else 1
    assert moment > 12 and contents(out) == whole


def test_a_world_whose_making_was_killed_is_made_by_the_next_fit(
    death: Death, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datamodule, "world_sources", lambda grid, clips, start=0, seed=0: tiny_sources(clips, grid))
    codec = make_codec()

    def prepare(root: Path) -> None:
        WorldData(GRID, codec, str(root), clips=2, makers=0).prepare_data()

    prepare(tmp_path / "whole")
    for moment in (0, *Random(0).sample(range(1, 36), 4)):
        root = tmp_path / str(moment)
        assert not death.survives(prepare, root, moment)
        prepare(root)
        assert contents(root) == contents(tmp_path / "whole")


def test_of_two_that_make_a_world_one_waits_for_the_other_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datamodule, "world_sources", lambda grid, clips, start=0, seed=0: tiny_sources(clips, grid))
    data = WorldData(GRID, root=str(tmp_path), latents=False, clips=2, makers=0)
    with holding(one_writer, tmp_path) as other:
        waiting = threading.Thread(target=data.prepare_data)
        waiting.start()
        said = ""
        while "\n" not in said and waiting.is_alive():
            waiting.join(0.01)
            said += capsys.readouterr().err
        assert (
            said
            == f"ccl: {tmp_path} is being written by another process ({other.pid} on {gethostname()}); waiting for it\n"
        )
        assert waiting.is_alive() and not list(tmp_path.glob("train-*"))
        other.let_go()
        waiting.join(30)
    assert len(list(tmp_path.glob("train-*/index.json"))) == 1


def test_a_kill_while_others_work_too_leaves_what_goes_on(death: Death, tmp_path: Path) -> None:
    make(tmp_path / "whole")
    for moment in Random(0).sample(range(16), 3):
        death.survives(lambda out: make(out, workers=2), tmp_path / str(moment), moment)
        make(tmp_path / str(moment), workers=2)
        assert contents(tmp_path / str(moment)) == contents(tmp_path / "whole")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_die_with_the_process_that_started_them(tmp_path: Path, method: str) -> None:
    program = f"""
import os, signal, time
from ccl.data.engines import processes
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    with processes(2, {method!r}, print) as pool:
        print([pool.submit(os.getpid).result() for _ in range(1)][0], flush=True)
        list(pool.map(time.sleep, [60, 60]))
"""
    (tmp_path / "program.py").write_text(program)
    with subprocess.Popen([sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(next(line for line in parent.stdout if line.strip()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert until(lambda: not alive(worker))


def test_workers_that_are_still_starting_die_too(tmp_path: Path) -> None:
    """What they build takes long to read, as the imports of a large codec do."""
    program = """
import time
from ccl.data.engines import run
class Slow:
    def __reduce__(self):
        return time.sleep, (60,)
if __name__ == "__main__":
    list(run(Slow(), [1, 2], ("cpu", "cpu")))
"""
    (tmp_path / "program.py").write_text(program)
    with subprocess.Popen([sys.executable, tmp_path / "program.py"], process_group=0) as parent:
        assert until(lambda: len(group(parent.pid)) >= 3)  # it, and its workers
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert until(lambda: not group(parent.pid))


def until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def group(leader: int) -> list[str]:
    """Processes of a group that are at work."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            found += [stat.parent.name] if fields[0] != "Z" and int(fields[2]) == leader else []
    return found


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_interruption_is_told_by_one_process(tmp_path: Path, method: str) -> None:
    """As a terminal does, which sends Ctrl-C to all; and nobody waits for work that takes long."""
    program = f"""
import os, signal, time
from ccl.data.engines import processes
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    try:
        with processes(2, {method!r}, os.write, 1, b"at work\\n") as pool:
            results = pool.map(time.sleep, [60, 60])
            os.write(1, b"waiting\\n")  # in the midst of a start, Python itself may swallow the interruption
            list(results)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    (tmp_path / "program.py").write_text(program)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, tmp_path / "program.py"], process_group=0, **pipes) as parent:
        assert parent.stdout is not None
        assert sorted(next(parent.stdout) for _ in range(3)) == ["at work\n"] * 2 + ["waiting\n"]
        os.killpg(parent.pid, signal.SIGINT)
        said, errors = parent.communicate(timeout=20)
        assert said.strip() == "interrupted" and errors == ""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_folder_has_one_writer(clips: Path, tmp_path: Path) -> None:
    with holding(one_writer, tmp_path) as other:
        for work in (make, make_buckets, lambda out: encode(clips, out)):
            with pytest.raises(FileError, match=f"is being written by another process .{other.pid} on"):
                work(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    make(tmp_path)


def test_a_shard_of_latents_that_was_deleted_is_made_again_whatever_is_killed(
    death: Death, clips: Path, tmp_path: Path
) -> None:
    def work(out: Path) -> None:
        encode(clips, out)

    work(tmp_path / "whole")
    whole, moment = contents(tmp_path / "whole"), 0
    assert sum(name.endswith(".tar") for name in whole) == 2
    while True:
        shutil.copytree(tmp_path / "whole", out := tmp_path / str(moment))
        (kept := out / "shard-000000.tar").chmod(0o444)
        before = kept.stat().st_ino
        (out / "shard-000001.tar").unlink()
        survived = death.survives(work, out, moment)
        assert (out / INDEX).is_file() or (out / PARTIAL).is_file()
        work(out)
        assert contents(out) == whole and kept.stat().st_ino == before, f"killed before change {moment}"
        if survived:
            break
        moment += 2
    assert moment > 6


def test_shards_of_clips_that_were_deleted_are_written_again_and_no_others(
    death: Death, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccl.data.write.write_clip", lambda clip, file: file.write(clip.prompt.encode()))  # in no time

    def mute(id: str) -> Source:
        return Source(id, lambda: replace(tiny_clip(0, GRID), audio=None))

    def work(out: Path, ill: str = "") -> None:
        one, *others = tiny_sources(5, GRID)
        sources = [one, mute("mute"), *others]
        write_shards([mute(s.id) if s.id == ill else s for s in sources], out, GRID, shard_size=2)

    work(tmp_path / "whole")
    whole, moment = contents(tmp_path / "whole"), 0
    assert sum(name.endswith(".tar") for name in whole) == 3
    while True:
        shutil.copytree(tmp_path / "whole", out := tmp_path / str(moment))
        for number in (0, 2):
            (out / f"shard-00000{number}.tar").unlink()
        before = {path: path.stat().st_ino for path in out.glob("*.tar")}
        survived = death.survives(work, out, moment)
        assert (out / INDEX).is_file() or (out / PARTIAL).is_file()
        work(out)
        assert contents(out) == whole, f"killed before change {moment}"
        assert all(path.stat().st_ino == inode for path, inode in before.items())
        if survived:
            break
        moment += 3
    assert moment > 9
    (shard := out / "shard-000000.tar").unlink()
    held = tiny_sources(1, GRID)[0].id
    with pytest.raises(
        ValueError, match=rf"^{shard} was deleted, and its clip {held} cannot be used any more: no audio"
    ):
        work(out, ill=held)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_finished_shard_that_changed_is_told_with_what_helps(
    clips: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that can be written alone is removed alone."""
    monkeypatch.setattr("ccl.data.write.write_clip", lambda clip, file: file.write(clip.prompt.encode()))  # in no time
    ways: dict[str, tuple[Callable[[Path], Any], str]] = {"buckets": (make_buckets, "9x16x16")}
    if damage == "cut":
        ways |= {"make": (make, ""), "encode": (lambda out: encode(clips, out), "")}
    for kind, (work, inner) in ways.items():
        work(out := tmp_path / kind)
        shard = out / inner / "shard-000001.tar"
        data, names = shard.read_bytes(), contents(out).keys()
        shard.unlink()
        if damage == "cut":
            shard.write_bytes(data[:-512])
        what = out / inner if inner else "it"
        with pytest.raises(ValueError, match=rf"^shard {shard} .* though it was finished; remove {what} and run"):
            work(out)
        if inner:
            shutil.rmtree(out / inner)
        else:
            shard.unlink()
        work(out)
        assert contents(out).keys() == names


def test_a_run_that_came_to_nothing_is_in_nobodys_way(tmp_path: Path) -> None:
    bad = [Source("mute", lambda: replace(tiny_clip(0, GRID), audio=None))]
    with pytest.raises(ValueError, match="clip mute cannot be used"):
        write_shards(bad, tmp_path, GRID, strict=True)
    assert make(tmp_path).written == 3


# The machine's trouble


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.ENOMEM])
def test_the_machines_trouble_is_never_kept_as_a_clips(tmp_path: Path, code: int, workers: int) -> None:
    """A clip that is not there is skipped for good; one that could not be opened today is made tomorrow."""

    def sources(*, ill: bool) -> list[Source]:
        def load(number: int) -> Any:
            if number == 0:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/somewhere/clip0.mp4")
            if ill and number == 2:
                try:
                    raise OSError(code, os.strerror(code))
                except OSError as error:  # as a reader of media tells it
                    raise MediaError("clip2", "cannot be decoded") from error
            return tiny_clip(number, GRID)

        return [Source(f"clip{number}", lambda n=number: load(n)) for number in range(4)]  # type: ignore[misc]

    out = tmp_path / "out"
    with pytest.raises(MachineError, match=r"^clip clip2: .*the machine's trouble .* the same command .*goes on"):
        write_shards(sources(ill=True), out, GRID, shard_size=1, workers=workers)
    assert not (out / "index.json").exists()
    report = write_shards(sources(ill=False), out, GRID, shard_size=1, workers=workers)
    assert report.skipped == [("clip0", "No such file or directory")] and report.written == 3
    write_shards(sources(ill=False), tmp_path / "well", GRID, shard_size=1)
    assert contents(out) == contents(tmp_path / "well")


def test_a_worker_that_is_killed_is_the_machines_trouble(tmp_path: Path) -> None:
    here = os.getpid()

    def load() -> Any:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return tiny_clip(0, GRID)

    with pytest.raises(MachineError, match=r"a working process died .* what was finished is kept, so run it again"):
        write_shards([Source("clip0", load)], tmp_path, GRID, workers=1)
    assert write_shards([Source("clip0", load)], tmp_path, GRID).written == 1


def test_processes_that_cannot_be_started_are_the_machines_trouble(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    held: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(4):
            os.close(held.pop())
        with pytest.raises(MachineError, match=r"^working processes: Too many open files; run it again, with fewer"):
            make(tmp_path, workers=2)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert make(tmp_path, workers=2).written == 3


def test_no_half_file_stays(tmp_path: Path) -> None:
    tmp_path.joinpath(f"{MARK}host-1-shard-000000.tar").write_bytes(b"half a shard")
    make(tmp_path)
    assert not list(tmp_path.glob(f"{MARK}*"))
