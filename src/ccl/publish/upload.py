"""The upload, by huggingface_hub's own calls: one commit of all files, and a sentence for each thing that can go wrong.

`HfApi.create_commit` and not `upload_folder`, which makes several commits where it sends by Xet: between two of them a
repository would hold the config of one model and the weights of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccl.storage.source import CONFIG, WEIGHTS

CARD = "README.md"
# What a repository that the hub has just made may hold, and still hold nothing.
EMPTY = (".gitattributes", CARD, "LICENSE")
RIGHTS = (
    "may not write there: the token needs the right to write, and the owner must be you or an organisation of yours"
)


@dataclass(frozen=True)
class File:
    """A file that goes up.

    Args:
        name: in the repository.
        content: a file here, or the text itself.
    """

    name: str
    content: Path | str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content.encode())


def check_name(name: str) -> None:
    """ValueError where no repository can be called so."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(str(error)) from error
    if name.count("/") != 1:
        raise ValueError("it has no owner")


class Hub:
    """One repository, as this machine's token reaches it.

    Args:
        name: OWNER/NAME.

    Raises:
        ValueError: there is no token, or the hub is switched off.
    """

    def __init__(self, name: str) -> None:
        from huggingface_hub import HfApi, constants, get_token

        self.name, self._token, self._api = name, get_token(), HfApi(endpoint=constants.ENDPOINT)
        if constants.HF_HUB_OFFLINE:
            raise ValueError(f"nothing is sent to {name} while HF_HUB_OFFLINE is set; `--dry` shows what would be")
        if self._token is None:
            raise ValueError(f"there is no token to push {name} with: `hf auth login`, or set HF_TOKEN")

    def held(self, *, private: bool = False) -> list[str] | None:
        """The files that the repository holds; None where there is none of that name, as far as the token sees.

        Args:
            private: refuse one that everybody reads.

        Raises:
            ValueError: it holds something else than a model folder, is public, or does not answer.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        with telling(self.name):
            try:
                info = self._api.model_info(self.name, token=self._token)
            except RepositoryNotFoundError:
                return None
        files = [one.rfilename for one in info.siblings or ()]
        other = [file for file in files if file not in EMPTY]
        if other and not {CONFIG, WEIGHTS} <= set(files):
            raise ValueError(
                f"{self.name} on the hub holds {other[0]} and is no model folder; nothing of it is overwritten: choose "
                "another name"
            )
        if private and not info.private:
            raise ValueError(
                f"{self.name} is there and everybody reads it; --private is of new repositories: change it in its "
                "settings on the hub, or choose another name"
            )
        return files

    def push(self, files: Sequence[File], message: str, *, private: bool = False) -> str:
        """Make the repository where there is none, and commit the files; the commit.

        Raises:
            ValueError: in one sentence; of the files none or all are there.
        """
        from huggingface_hub import CommitOperationAdd

        added = [
            CommitOperationAdd(file.name, file.content.encode() if isinstance(file.content, str) else file.content)
            for file in files
        ]
        with telling(self.name):
            self._api.create_repo(self.name, private=private or None, exist_ok=True, token=self._token)
            done = self._api.create_commit(self.name, added, commit_message=message, token=self._token)
        return str(done.oid)


def address(name: str) -> str:
    """The page of a repository."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{name}"


@contextmanager
def telling(name: str) -> Iterator[None]:
    """What huggingface_hub raises, as one sentence that names the repository."""
    try:
        yield
    except Exception as error:  # a thread that uploads wraps what went wrong there
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__) is not None:
            chain.append(cause)
        if said := next(filter(None, map(told, chain)), ""):
            raise ValueError(f"{name} was not pushed: {said}") from error
        raise


def told(error: Any) -> str:
    """What an answer of the hub, or its absence, means; "" for what is neither."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    if isinstance(error, ValueError) and "Invalid metadata in README.md" in str(error):
        return f"the hub does not take the metadata of its card: {' '.join(str(error).split()[4:]).lstrip('- ')}"
    if not isinstance(error, HfHubHTTPError):
        unreached = "the hub cannot be reached; try the same line again later"
        return unreached if isinstance(error, HTTPError | ConnectionError) else ""
    status = error.response.status_code
    if status == 401:
        return "the hub refuses the token (HTTP 401); `hf auth login` takes a new one"
    if status in (403, 404):
        return f"this token {RIGHTS} (HTTP {status})"
    return f"the hub answers with HTTP {status}; try again later"
