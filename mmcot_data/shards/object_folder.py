"""A feature set's folder in object storage, for those who write.

An object appears whole. A shard and its commit record are only put where there is none, and the
folder's own records only where the one that was looked at still is: a process that lost its claim,
while it slept, can't replace what another one has made since.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any
from uuid import uuid4

from mmcot_data.errors import FolderLockedError, ShardError
from mmcot_data.shards.lease import Lease, is_held, read_owner
from mmcot_data.shards.object_store import Buffer, ChangedError, ObjectStore
from mmcot_data.shards.persistence import StoreError
from mmcot_data.shards.writable import StoredFile

__all__ = ["ObjectFolder"]

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_WORKER, _CLAIM_SUFFIX = ".worker-", ".claim"
_POLL_SECONDS = 1.0
_ATTEMPTS = 5


class ObjectFolder:
    """The objects below a URL as a folder; can be pickled, without its claims.

    Args:
        url: ``s3://bucket/shards/detr``.
        storage_options: As for ``ObjectStore``.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.url = url.rstrip("/")
        self.storage_options = storage_options
        self._store = ObjectStore(self.url, storage_options)
        self._held: dict[str, Lease] = {}
        """What this process holds: shards by their file, and the lock."""
        self._knows_conditions = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.storage_options)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return PurePosixPath(self.url).name

    def files(self, names: Iterable[str] | None = None) -> Mapping[str, StoredFile]:
        """All objects, and the manifests of folders in it; or some of them."""
        wanted = None if names is None else set(names)
        return {
            name: StoredFile(found.nbytes, found.etag)
            for name, found in self._store.list_objects().items()
            if "/" not in name or name.partition("/")[2] == "manifest.json"
            if wanted is None or name in wanted
        }

    def find(self, name: str) -> StoredFile | None:
        """One object."""
        found = self._store.find(name)
        return None if found is None else StoredFile(found.nbytes, found.etag)

    def read(self, names: Iterable[str]) -> Mapping[str, bytes]:
        """The bytes of those objects that are there."""
        return self._store.read(names)

    def sha256(self, name: str) -> str:
        """Hex digest as noted at the upload; what something else put there is read."""
        found = self._store.find(name)
        if found is None:
            raise ShardError(f"{self.url}/{name} is absent")
        return found.sha256 or self._store.digest(name)

    def write(self, name: str, parts: Sequence[Buffer]) -> str:
        """Put an object; that of a claimed shard after removing what was there."""
        lease = self._permission(name)
        is_claimed = lease is not self._held.get(_LOCK)
        for _ in range(_ATTEMPTS):
            if is_claimed:
                self.remove(name)
            found = None if is_claimed else self._store.find(name)
            lease.check()
            try:
                return self._store.put(name, parts, only_if=found.etag if found else "*")
            except ChangedError:
                continue  # by a process that had the claim or the lock before, and has lost it
        raise StoreError(f"{self.url}/{name}: another process writes it without a claim")

    def remove(self, name: str) -> None:
        """Remove an object if it is there."""
        found = self._store.find(name)
        lease = self._permission(name)
        lease.check()
        if found is not None:
            self._store.remove(name, found.etag, lease.check)

    def remove_half_written(self, names: Sequence[str] | None = None) -> None:
        """Abort uploads that were not completed, so that nobody pays for their parts."""
        self._store.abort_uploads(names)

    @contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[None]:
        """Exclude every other writer that begins or ends."""
        if (lease := self._take(_LOCK, wait)) is None:
            owner = read_owner(self._store.read([_LOCK]).get(_LOCK))
            raise FolderLockedError(
                f"{self.url} is being written by {owner}; wait until it has finished, or choose "
                "another folder"
            )
        self._held[_LOCK] = lease
        try:
            if not self._knows_conditions and not lease.conditions_hold():
                logger.warning(
                    "%s: the store ignores If-None-Match: processes that write at the same time "
                    "may make the same shards twice; run one at a time",
                    self.url,
                )
            self._knows_conditions = True
            yield
        finally:
            del self._held[_LOCK]
            lease.release()

    def claim(self, file: str, wait: float = 0.0) -> "_ObjectClaim | None":
        """Claim a shard, and abort what a killed process was uploading of it."""
        if (lease := self._take(_claim_name(file), wait)) is None:
            return None
        self._held[file] = lease
        claim = _ObjectClaim(self, file)
        try:
            if lease.taken_over:
                self._store.abort_uploads([file, f"{file}.json"])
        except BaseException:
            claim.release()
            raise
        return claim

    def give_up(self, file: str) -> None:
        """Give up the claim on a shard."""
        self._held.pop(file).release()

    def claimed(self, files: Sequence[str]) -> set[str]:
        """Those shards whose claim is renewed."""
        found = self._store.list_objects()
        names = {file: _claim_name(file) for file in files}
        return {f for f, name in names.items() if name in found and is_held(found[name])}

    def owner(self, file: str) -> str:
        """Who makes a shard."""
        name = _claim_name(file)
        return read_owner(self._store.read([name]).get(name))

    @contextmanager
    def present_worker(self) -> Iterator[None]:
        """Let it be known that this process makes shards."""
        lease = Lease.take(self._store, f"{_WORKER}{uuid4().hex}{_CLAIM_SUFFIX}")
        assert lease is not None
        try:
            yield
        finally:
            lease.release()

    def find_worker(self) -> str | None:
        """Who makes shards."""
        for name, found in self._store.list_objects().items():
            if name.startswith(_WORKER) and is_held(found):
                return read_owner(self._store.read([name]).get(name))
        return None

    def clear_claims(self) -> None:
        """Remove the claims that nobody renews."""
        for name, found in self._store.list_objects().items():
            is_claim = name.startswith(".") and name.endswith(_CLAIM_SUFFIX)
            if is_claim and not is_held(found):
                try:
                    self._store.remove(name, found.etag)
                except ChangedError:
                    continue  # it has been taken over

    def _take(self, name: str, wait: float) -> Lease | None:
        deadline = time.monotonic() + wait
        while (lease := Lease.take(self._store, name)) is None:
            if wait >= 0 and deadline <= time.monotonic():
                return None
            time.sleep(_POLL_SECONDS)
        return lease

    def _permission(self, name: str) -> Lease:
        """The claim on a shard or the lock, which allow this process to write."""
        lease = self._held.get(name.removesuffix(".json")) or self._held.get(_LOCK)
        if lease is None:
            raise RuntimeError(f"{self.url}/{name} is written without a claim")
        return lease


class _ObjectClaim:
    def __init__(self, folder: ObjectFolder, file: str) -> None:
        self._folder = folder
        self._file = file

    def release(self) -> None:
        self._folder.give_up(self._file)


def _claim_name(file: str) -> str:
    return f".{file}{_CLAIM_SUFFIX}"
