"""A finished run on the Hugging Face hub."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from mmcot_data.errors import TrainingError

__all__ = ["check_hub_access", "push_run"]

_STAGES = ("rationale", "answer")
_OWN_FILES = (
    "config.json",
    "train.yaml",
    "rationales.parquet",
    "predictions.parquet",
    "scores.json",
    "run.json",
    "rationale/*",
    "answer/*",
)
"""What a run may have left in a repository; what a newer one lacks of it is deleted there."""
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token of https://huggingface.co/settings/tokens"


def check_hub_access(repo_id: str) -> None:
    """See that the hub is there and would take a run, before it is trained.

    Whether a fine-grained token may write to this repository shows only when it does.

    Args:
        repo_id: ``owner/name``; without an owner it is the token's own.

    Raises:
        TrainingError: If the hub cannot be reached, the name is impossible, there is no valid
            token, the token may only read, or the owner is somebody else.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _explained(repo_id):
        validate_repo_id(repo_id)
        user = HfApi().whoami()
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise TrainingError(
            f"the hub's token of {user['name']} may only read, and cannot push to {repo_id}: "
            "expected one that may write (https://huggingface.co/settings/tokens)"
        )
    owners = [user["name"], *(each["name"] for each in user.get("orgs", []))]
    owner = repo_id.partition("/")[0] if "/" in repo_id else user["name"]
    if owner.lower() not in (each.lower() for each in owners):
        raise TrainingError(
            f"the hub's token is of {user['name']}, who cannot push to {repo_id}: expected a "
            f"repository of {' or '.join(owners)}"
        )


def push_run(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a finished run: models, tables, settings and card, as one commit.

    The repository is made if it is not there. Files of another run in it are replaced or deleted;
    what is no run's (a licence, pictures) stays. Checkpoints and logs are not uploaded.

    Args:
        folder: The run folder.
        repo_id: ``owner/name``; without an owner it is the token's own.
        private: Whether a repository that is made now is private.

    Returns:
        The repository's address.

    Raises:
        TrainingError: If the run is not finished, or the hub does not take it.
    """
    from huggingface_hub import HfApi

    if not (folder / "run.json").is_file():
        raise TrainingError(f"{folder} holds no finished run: expected the output of mmcot-train")
    api = HfApi()
    with _explained(repo_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
        repository = api.create_repo(repo_id, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            allow_patterns=list(_files_of(folder)),
            delete_patterns=list(_OWN_FILES),
            commit_message="Run of mmcot-train",
        )
    return str(repository)


def _files_of(folder: Path) -> Iterator[str]:
    """Files of the run itself and of its stages' models, relative to the folder."""
    for place in (folder, *(folder / stage for stage in _STAGES)):
        for path in sorted(place.glob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(folder).as_posix()


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turn the hub's errors into ones that say what to do; none tells the token."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    # Those of the HTTP library, which is not the same in all versions, and OSError.
    network = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    others: tuple[type[Exception], ...] = (*network, RuntimeError, ValueError)
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise TrainingError(f"no token of the hub to push to {repo_id} with: {_LOGIN}") from error
    except OfflineModeIsEnabled as error:
        raise TrainingError(f"HF_HUB_OFFLINE forbids to push to {repo_id}: unset it") from error
    except HFValidationError as error:
        raise TrainingError(f"{repo_id!r} cannot be a repository: {error}") from error
    except HfHubHTTPError as error:
        raise TrainingError(_refusal(repo_id, error)) from error
    except others as error:
        reason = str(error.__cause__ or error) or type(error).__name__
        raise TrainingError(f"the hub does not take {repo_id}: {reason}") from error


def _refusal(repo_id: str, error: Any) -> str:
    status = error.response.status_code
    if status == 401:
        return f"the hub refuses the token to push to {repo_id} with: {_LOGIN}"
    if status == 403:
        return (
            f"the hub's token may not write to {repo_id}: expected one with write access to it "
            f"(https://huggingface.co/settings/tokens). {error}"
        )
    return f"the hub does not take {repo_id}: {error}"
