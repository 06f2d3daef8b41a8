"""Models of the Hugging Face hub: OWNER/NAME stands for a model folder there, where nothing here has that name.

Only a model's two files are fetched, by huggingface_hub into its own cache; what they may name is the same as of any
folder (trust.py).
"""

from __future__ import annotations

from pathlib import Path

from ccl.weights.find import HUB_NAME


def is_hub_name(path: str | Path) -> bool:
    """Whether a path can only be meant as a repository of the hub: OWNER/NAME, and no folder OWNER here.

    So `runs/joint` misspelt stays a path wherever there is a folder runs, and what ends in .ckpt always does.
    """
    given = Path(path)
    return bool(HUB_NAME.fullmatch(str(path))) and given.suffix != ".ckpt" and not given.parent.exists()


def snapshot(name: str, files: tuple[str, ...], revision: str | None = None) -> Path:
    """The folder of a repository's files on this machine, named by its commit; fetched where they are not here yet.

    Args:
        name: OWNER/NAME.
        files: that are wanted; no other is fetched.
        revision: a branch, tag or commit; None is the branch main.

    Raises:
        ValueError: one sentence, where there is no such repository or revision, it is not for this token, lacks one of
            the files, or the hub cannot be reached and they are not here.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    begin = f"there is no checkpoint {name} here"
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except RevisionNotFoundError as error:
        raise ValueError(f"{name} on the hub has no revision {revision}") from error
    except GatedRepoError as error:
        raise ValueError(
            f"{begin}, and {name} on the hub is gated: ask for access on its page, and then `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        if isinstance(cause := error.__cause__, HfHubHTTPError):
            answer = f"answers with HTTP {cause.response.status_code}; try again later"
        else:
            answer = f"cannot be reached (or HF_HUB_OFFLINE is set); `hf download {name}` fetches it where it can"
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
        raise ValueError(f"{name} on the hub is no model folder of ccl: it has no {lacking[0]}")
    return folder
