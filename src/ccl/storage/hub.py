"""Models of the Hugging Face hub: OWNER/NAME or OWNER/NAME@REVISION stands for a model folder there, where nothing here
has that name.

Only a model's two files are fetched, by huggingface_hub into its own cache; what they may name is the same as of any
folder (trust.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccl.weights.find import Repository


class NoModel(ValueError):  # noqa: N818 - a fact more than an error
    """A repository of the hub that holds no model of ccl; the message is one sentence."""


def snapshot(there: Repository, files: tuple[str, ...]) -> Path:
    """The folder of a repository's files on this machine, named by its commit; fetched where they are not here yet.

    Args:
        there: the repository.
        files: that are wanted; no other is fetched, and of a repository without the first none.

    Raises:
        NoModel: it lacks one of the files.
        ValueError: one sentence, where there is no such repository or revision, it is not for this token, or the hub
            cannot be reached and the files are not here.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from tqdm.auto import tqdm

    class Silent(tqdm):  # of the first file, which is small, and of all where they are here
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how | {"disable": True})

    begin = f"there is no checkpoint {there} here"
    first, *others = files
    try:
        folder = Path(snapshot_download(there.name, revision=there.revision, allow_patterns=first, tqdm_class=Silent))
        if (folder / first).is_file() and (wanted := [file for file in others if not (folder / file).is_file()]):
            # Of the same commit, whoever pushes meanwhile.
            folder = Path(snapshot_download(there.name, revision=folder.name, allow_patterns=wanted))
    except RevisionNotFoundError as error:
        raise ValueError(f"{there.name} on the hub has no revision {there.revision}") from error
    except GatedRepoError as error:
        raise ValueError(
            f"{begin}, and {there.name} on the hub is gated: ask for access on its page, and then `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        if isinstance(cause := error.__cause__, HfHubHTTPError):
            answer = f"answers with HTTP {cause.response.status_code}; try again later"
        else:
            answer = f"cannot be reached (or HF_HUB_OFFLINE is set); `{there.download}` fetches it where it can"
        raise ValueError(f"{begin}, and the hub {answer}") from error
    except RepositoryNotFoundError as error:  # the hub says the same of private ones
        raise ValueError(
            f"{begin} and no repository of that name on the hub that this token may read; a private one needs `hf auth "
            "login`"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ValueError(
                f"{begin}, and the hub refuses the token (HTTP {status}); `hf auth login` takes a new one"
            ) from error
        raise ValueError(f"{begin}, and the hub answers with HTTP {status}; try again later") from error
    if lacking := [file for file in files if not (folder / file).is_file()]:
        raise NoModel(f"{there} on the hub is no model folder of ccl: it has no {lacking[0]}")
    return folder
