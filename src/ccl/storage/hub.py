"""Models of the Hugging Face hub: OWNER/NAME or OWNER/NAME@REVISION stands for a model folder there, where nothing here
has that name.

Only a model's two files are fetched, by huggingface_hub into its own cache; what they may name is the same as of any
folder (trust.py).
"""

from __future__ import annotations

from pathlib import Path

from ccl.weights.find import Repository


class NoModel(ValueError):  # noqa: N818 - a fact more than an error
    """A repository of the hub that holds no model of ccl; the message is one sentence."""


def snapshot(there: Repository, files: tuple[str, ...]) -> Path:
    """The folder of a repository's files on this machine, named by its commit; fetched where they are not here yet.

    Args:
        there: the repository.
        files: that are wanted; no other is fetched, and none after the first that it lacks.

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

    begin, revision, folder = f"there is no checkpoint {there} here", there.revision, Path()
    try:
        for file in files:
            folder = Path(snapshot_download(there.name, revision=revision, allow_patterns=file))
            if not (folder / file).is_file():
                raise NoModel(f"{there} on the hub is no model folder of ccl: it has no {file}")
            revision = folder.name  # all of one commit, whoever pushes meanwhile
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
    return folder
