"""Published weights on this machine: where they lie, and in a sentence what is missing of those that a config names.

Nothing is fetched here; the sentence says how (`ccl weights fetch`).
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ccl.spelling import did_you_mean

PACKAGE = Path(__file__).parents[1]
HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@((?!.*\.\.)\w[\w./-]*))?")


class Repository(NamedTuple):
    """A repository of the hub.

    Args:
        name: OWNER/NAME.
        revision: a branch, tag or commit; None is the branch main.
    """

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    @property
    def download(self) -> str:
        """The command that fetches all of it."""
        return f"hf download {self.name}" + ("" if self.revision is None else f" --revision {self.revision}")


def repository(text: str) -> Repository | None:
    """What OWNER/NAME or OWNER/NAME@REVISION may mean on the hub; None for a text of another form."""
    found = HUB_NAME.fullmatch(text)
    return None if found is None else Repository(*found.groups())


def on_hub(given: str | Path) -> Repository | None:
    """What of the hub a text can only mean; None where it means a path.

    Where there is a folder OWNER here, OWNER/NAME is a path, so that `runs/joint` misspelt asks nobody. So is what
    ends in .ckpt, and a Path; a text that begins as a path does (./, ../, /, ~) has no name's form.
    """
    if isinstance(given, Path) or given.endswith(".ckpt") or (found := repository(given)) is None:
        return None
    return None if Path(given.split("/")[0]).exists() else found


class Absent(ValueError):  # noqa: N818 - a fact more than an error
    """Weights that a config names are not on this machine; the message is one sentence."""


def installed(path: str | Path) -> Path:
    """A path; one that begins with ccl/checkpoints/ lies in this installation of the package, wherever that is."""
    parts = Path(path).parts
    return PACKAGE.joinpath(*parts[1:]) if parts[:2] == ("ccl", "checkpoints") else Path(path)


def find(path: str | Path, what: str) -> Path:
    """A file or folder, or where weights that were fetched lie on this machine.

    Args:
        path: as a config gives it: a path, a name of `ccl weights list`, or OWNER/NAME[@REVISION] of the hub.
        what: for the message, as "Wan's VAE".

    Raises:
        Absent: there is none; weights of a known name are to be fetched first.
    """
    found = search(path)
    if found is not None:
        return found
    fetch = command([str(path)])
    if not fetch:
        from ccl.weights.catalogue import TABLE

        raise Absent(f"there is no file or folder {path}, given as {what}{did_you_mean(str(path), TABLE)}")
    raise Absent(f"{what} is {path}, which is not on this machine: `{fetch}`, or name a folder")


def search(path: str | Path) -> Path | None:
    """As `find`; None where there is none."""
    given = installed(path).expanduser()
    if given.exists():
        return given
    from ccl.weights.catalogue import cache

    name = str(path)
    if (entry := entry_of(name)) is not None:
        if (place := cache() / entry.file).exists():
            return place
        name = entry.source[0].removeprefix("hf:") if entry.source else ""
    if (there := repository(name)) is None:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(there.name, revision=there.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def missing(config: Any, here: Container[str] = ()) -> str:
    """One sentence that names all published weights that a config asks for and this machine does not have; "" for none.

    Args:
        config: plain values. A class says in its attribute `sources` which of its arguments name weights, a key
            `pretrained` names some or, in an object, one for each stream and the text encoder, and `lora.start` a LoRA.
        here: names of models that were fetched, which `search` does not know as they are no whole repositories.
    """
    lacking: dict[str, list[str]] = {}
    for key, path in _sources(config):
        if path not in here and search(path) is None:
            lacking.setdefault(str(path), []).append(key)
    if not lacking:
        return ""
    listed = ", ".join(f"{path} ({' and '.join(keys)})" for path, keys in lacking.items())
    fetch = command(lacking)
    how = f"; `{fetch}` fetches them, or name files of your own" if fetch else ""
    return f"the config names weights that are not on this machine: {listed}{how}"


def command(names: Iterable[str]) -> str:
    """The line that fetches what can be fetched of these; "" for paths."""
    known = list(dict.fromkeys(entry.name for name in names if (entry := entry_of(name)) is not None))
    hub = [there for name in names if entry_of(name) is None and (there := on_hub(name)) is not None]
    others = [there.download for there in hub]
    return " && ".join(([f"ccl weights fetch {' '.join(known)}"] if known else []) + others)


def classes(config: Any, path: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Every class_path of a config: (dotted path, the class, its init_args)."""
    if isinstance(config, dict):
        if isinstance(config.get("class_path"), str):
            yield path, pkgutil.resolve_name(config["class_path"]), config.get("init_args") or {}
        for key, value in config.items():
            yield from classes(value, f"{path}.{key}".strip("."))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from classes(value, f"{path}.{index}")


def _sources(config: Any) -> Iterator[tuple[str, str]]:
    """(dotted key, path) of all weights that a config names."""
    for path, cls, args in classes(config):
        given = ((f"{path}.init_args.{name}", args.get(name)) for name in getattr(cls, "sources", ()))
        yield from ((key, value) for key, value in given if value is not None)
    model = config.get("model") or {}
    pretrained = model.get("pretrained")
    for stream, value in (pretrained if isinstance(pretrained, dict) else {"": pretrained}).items():
        if value is not None:
            yield f"model.pretrained.{stream}".rstrip("."), value
    lora = model.get("lora")
    if isinstance(lora, dict) and lora.get("start") is not None:
        yield "model.lora.start", lora["start"]


def entry_of(name: str) -> Any:
    """The line of the table of weights that a name, or a repository of the hub, stands for; None where none does."""
    from ccl.weights.catalogue import TABLE

    found = TABLE.get(name)
    return found or next((entry for entry in TABLE.values() if f"hf:{name}" in entry.source), None)
