"""A finished run on the Hugging Face hub."""

import json
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, cast

from mmcot_data.errors import TrainingError
from mmcot_model.runs.folder import read_config, read_run
from mmcot_model.settings.files import write_config_file

__all__ = ["check_hub_access", "push_run"]

_RUN_FILES = (
    "README.md",
    "config.json",
    "train.yaml",
    "rationales.parquet",
    "predictions.parquet",
    "scores.json",
    "error_analysis.parquet",
    "error_analysis.json",
    "run.json",
)
_STAGES = ("rationale", "answer")
_STAGE_FILES = (
    "config.json",
    "generation_config.json",
    "history.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)
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
    what is no run's (a licence, pictures) stays. Checkpoints and logs are not uploaded. Of paths of
    this machine, settings and run.json keep the last part there.

    Args:
        folder: The run folder.
        repo_id: ``owner/name``; without an owner it is the token's own.
        private: Whether a repository that is made now is private.

    Returns:
        The repository's address.

    Raises:
        TrainingError: If the run is not finished or damaged, or the hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    if not (folder / "run.json").is_file():
        raise TrainingError(f"{folder} holds no finished run: expected the output of mmcot-train")
    contents: dict[str, Path | bytes] = {
        name: path
        for path in sorted(folder.glob("*")) + sorted(folder.glob("*/*"))
        if path.is_file() and _is_of_run(name := path.relative_to(folder).as_posix())
    }
    contents |= _public_copies(folder)
    api = HfApi()
    with _explained(repo_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
        repository = api.create_repo(repo_id, private=private or None, exist_ok=True)
        outdated = [
            name
            for name in api.list_repo_files(repository.repo_id)
            if _is_of_run(name) and name not in contents
        ]
        api.create_commit(
            repository.repo_id,
            [
                *(CommitOperationDelete(name) for name in outdated),
                *(CommitOperationAdd(name, content) for name, content in contents.items()),
            ],
            commit_message="Run of mmcot-train",
        )
    return str(repository)


def _is_of_run(name: str) -> bool:
    """Whether a file is one that a run has on the hub, by its path there."""
    stage, _, file = name.rpartition("/")
    if stage:
        return stage in _STAGES and any(fnmatchcase(file, each) for each in _STAGE_FILES)
    return file in _RUN_FILES


def _public_copies(folder: Path) -> dict[str, bytes]:
    """The files of a run that name places, without the folders of this machine."""
    config, run = read_config(folder), read_run(folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    public = replace(config, **{f.name: _public(getattr(config, f.name)) for f in fields(config)})
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "train.yaml"
        write_config_file(path, public)
        train_yaml = path.read_bytes()
    if not run.keys() >= {"features", "environment"}:
        raise TrainingError(
            f"{folder / 'run.json'}: expected 'features' and 'environment': the run was made by "
            "another version of mmcot; train it anew"
        )
    for name in ("artifacts", "features"):
        run[name] = _public(run[name])
    command = map(_public_word, shlex.split(run["environment"]["command"]))
    run["environment"] |= {"command": shlex.join(command)}
    return {
        "config.json": _json({name: _public(value) for name, value in settings.items()}),
        "train.yaml": train_yaml,
        "run.json": _json(run),
    }


def _public(value: Any) -> Any:
    """A setting's value; of a path that is absolute or leaves the working directory, the last part.

    Other relative paths say nothing of the machine; URLs, ids of the hub and names are no paths.
    """
    if isinstance(value, list | tuple):
        return type(value)(_public(each) for each in value)
    if isinstance(value, Path):
        return Path(_public(str(value)))
    if not isinstance(value, str) or "://" in value:
        return value
    path = PurePath(value)
    names_machine = path.is_absolute() or value.startswith("~") or ".." in path.parts
    return (path.name or ".") if names_machine else value


def _public_word(word: str) -> str:
    """A word of a command line, which may be ``--flag=PATH``."""
    if word.startswith("--") and "=" in word:
        flag, value = word.split("=", 1)
        return f"{flag}={_public(value)}"
    return str(_public(word))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


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
