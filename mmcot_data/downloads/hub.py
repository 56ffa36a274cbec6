"""Find the parquet files of a data set on Hugging Face's hub, or in its cache on this machine.

``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are honoured. The token is sent to
the hub alone, not to mirrors.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)

from mmcot_data.downloads.catalogue import HubFile
from mmcot_data.downloads.failures import RefusedError
from mmcot_data.downloads.hub_endpoints import ask_endpoints
from mmcot_data.downloads.job import DownloadJob
from mmcot_data.downloads.remote_file import FetchedFile, RemoteFile
from mmcot_data.errors import DataError, DownloadError
from mmcot_data.files import file_sha256

__all__ = ["FoundFile", "find_hub_files", "hub_headers"]

_TYPE = "dataset"
_FILE = re.compile(
    r"data/(train|validation|test)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?\.parquet", re.ASCII
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFile:
    """A parquet file and where it is: either ``remote`` or ``cached``."""

    split: str
    remote: RemoteFile | None = None
    cached: FetchedFile | None = None
    path: Path | None = None
    """Of the cached file."""
    about_nbytes: int = 0

    def place(self, work: Path) -> Path:
        """Where it is once it is fetched into a working folder."""
        if self.remote is not None:
            return work / self.remote.name
        assert self.path is not None
        return self.path


def find_hub_files(job: DownloadJob) -> tuple[str, list[FoundFile]]:
    """Find the parquet files of the splits that are asked for.

    Files in the local cache are used from there if their content is what the hub says.

    Returns:
        The commit, and the files by split and number.

    Raises:
        DataError: If the revision has other files than expected.
        DownloadError: If they cannot be found, or the hub tells another digest than is published.
    """
    catalogue = job.catalogue.scienceqa
    revision = job.config.revision or catalogue.hub_revision
    if revision == catalogue.hub_revision:
        commit, files = revision, list(catalogue.hub_files)
    elif constants.is_offline_mode():
        commit, files = _list_cached(catalogue.hub_repository, revision)
    else:
        commit, files = _list_remote(job, revision)
    splits = job.config.chosen_splits
    return commit, [_find(job, commit, file) for file in files if file.split in splits]


def hub_headers() -> dict[str, str]:
    """What lets the hub know its user, if this machine has a token."""
    token = get_token()
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _find(job: DownloadJob, commit: str, file: HubFile) -> FoundFile:
    repository = job.catalogue.scienceqa.hub_repository
    cached = try_to_load_from_cache(repository, file.path, revision=commit, repo_type=_TYPE)
    if isinstance(cached, str) and (found := _take_cached(job, Path(cached), file)) is not None:
        return found
    remote = RemoteFile(
        name=f"archives/{Path(file.path).name}",
        url=hf_hub_url(repository, file.path, repo_type=_TYPE, revision=commit),
        sha256=file.sha256,
    )
    if constants.is_offline_mode():
        raise DownloadError(
            f"{file.path} of {repository} at {commit} is not in the cache "
            f"{constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to fetch it: unset it, or fill "
            "the cache where there is a network with "
            f"`hf download --repo-type dataset --revision {commit} {repository}`"
        )

    remote = _ask_size_and_digest(job, commit, file, remote)
    return FoundFile(
        split=file.split, remote=remote, about_nbytes=remote.nbytes or file.about_nbytes
    )


def _ask_size_and_digest(
    job: DownloadJob, commit: str, file: HubFile, remote: RemoteFile
) -> RemoteFile:
    """Complete what is known of a file before it is fetched.

    A size is believed only together with a digest: without one the answer may be to any page.
    """
    repository = job.catalogue.scienceqa.hub_repository
    num_without_digest = 0

    def ask(endpoint: str | None) -> RemoteFile:
        nonlocal num_without_digest
        url = hf_hub_url(repository, file.path, repo_type=_TYPE, revision=commit, endpoint=endpoint)
        told = get_hf_file_metadata(url, token=_token(endpoint), endpoint=endpoint)
        if told.etag is None or not _SHA256.fullmatch(told.etag):
            num_without_digest += 1
            raise RefusedError("it tells no sha256, so its size is not trusted")
        if told.etag != (file.sha256 or told.etag):
            raise RefusedError(
                f"its file has the sha256 {told.etag}, published is {file.sha256}: it was replaced"
            )
        return replace(remote, nbytes=told.size, sha256=told.etag)

    what = f"size and sha256 of {file.path}"
    try:
        return ask_endpoints(job, ask, what)
    except DownloadError as error:
        if not num_without_digest:
            raise
        job.reports.say(f"{error}\nthe file itself is asked for all the same")
        return remote


def _take_cached(job: DownloadJob, path: Path, file: HubFile) -> FoundFile | None:
    """The cached file, if its content is right.

    The cache names what it keeps by the digest that the hub told.
    """
    blob = path.resolve().name
    expected = file.sha256 or (blob if _SHA256.fullmatch(blob) else None)
    found = file_sha256(path)
    if expected is not None and found != expected:
        job.reports.say(
            f"{path} in Hugging Face's cache is damaged (sha256 {found[:12]}…, expected "
            f"{expected[:12]}…) and is not used"
        )
        return None
    job.reports.say(f"{path.name} is taken from Hugging Face's cache: {path}")
    fetched = FetchedFile(
        name=path.name,
        url=path.as_uri(),
        nbytes=path.stat().st_size,
        sha256=found,
        etag=None,
        last_modified=None,
        verified=expected is not None,
    )
    return FoundFile(split=file.split, cached=fetched, path=path)


def _list_remote(job: DownloadJob, revision: str) -> tuple[str, list[HubFile]]:
    repository = job.catalogue.scienceqa.hub_repository

    def ask(endpoint: str | None) -> tuple[str, list[HubFile]]:
        api = HfApi(endpoint=endpoint, token=_token(endpoint), library_name="mmcot")
        try:
            about = api.dataset_info(repository, revision=revision, files_metadata=True, timeout=60)
        except (OSError, httpx2.HTTPError):
            raise
        except (ValueError, TypeError, LookupError) as error:  # what it says is no such list
            raise RefusedError("it answers, but not with a list of files") from error
        told = {
            sibling.rfilename: (sibling.size, sibling.lfs.sha256 if sibling.lfs else None)
            for sibling in about.siblings or []
        }
        files = [
            replace(file, about_nbytes=told[file.path][0] or 0, sha256=told[file.path][1])
            for file in _parse_files(list(told), f"{repository} at {revision}")
        ]
        return about.sha or revision, files

    return ask_endpoints(job, ask, f"the files of revision {revision}")


def _list_cached(repository: str, revision: str) -> tuple[str, list[HubFile]]:
    try:
        folder = Path(
            snapshot_download(repository, repo_type=_TYPE, revision=revision, local_files_only=True)
        )
    except OSError as error:
        raise DownloadError(
            f"revision {revision} of {repository} is not in the cache {constants.HF_HUB_CACHE}, "
            "and HF_HUB_OFFLINE forbids to fetch it"
        ) from error
    paths = [path.relative_to(folder).as_posix() for path in folder.glob("data/*.parquet")]
    return folder.name, _parse_files(paths, str(folder))


def _parse_files(paths: Sequence[str], where: str) -> list[HubFile]:
    matches = sorted(
        (match for path in paths if (match := _FILE.fullmatch(path))), key=lambda match: match[0]
    )
    files = []
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        parts = [match for match in matches if match[1] == name]
        expected = [(number, len(parts)) for number in range(len(parts))]
        if not parts or [(int(part[2]), int(part[3])) for part in parts] != expected:
            found = ", ".join(part[0] for part in parts) or "none"
            raise DataError(
                f"{where}: expected the files data/{name}-00000-of-0000N.parquet to the N-th, "
                f"found {found}; choose another --revision"
            )
        files += [HubFile(split=split, path=part[0], about_nbytes=0) for part in parts]
    return files


def _token(endpoint: str | None) -> bool | None:
    """For huggingface_hub: False sends none, None the user's."""
    return None if endpoint is None else False
