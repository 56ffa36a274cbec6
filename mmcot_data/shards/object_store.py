"""Objects below a prefix of an S3 bucket: listed, read, put on conditions, removed."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from uuid import uuid4

from mmcot_data.errors import ShardError
from mmcot_data.shards.bucket import Bucket, error_code, http_status
from mmcot_data.shards.uploads import abort_upload, upload

__all__ = ["Buffer", "ChangedError", "ObjectStore", "StoredObject"]

Buffer = bytes | memoryview
"""Of bytes."""

_NUM_READS = 32
_BLOCK_NBYTES = 2**20
_WRITE, _SHA256 = "mmcot-write", "sha256"
"""Metadata of an object: which call put it there, and the digest of its bytes."""


class ChangedError(ShardError):
    """An object is not, or no longer, what a condition says."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url} was changed by another process at the same time; run the same command again"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """What the store says about an object."""

    nbytes: int
    etag: str
    """Changes with the bytes; the store decides how it is made."""
    age: float
    """Seconds since it was written, by the store's clock."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Empty in a listing."""

    @property
    def sha256(self) -> str | None:
        """Hex digest of its bytes as noted when it was put; None if something else put it."""
        return self.metadata.get(_SHA256)


class ObjectStore:
    """The objects below a URL, by the rest of their names.

    Can be pickled. All methods raise ``StoreError`` if the store can't be reached for half a
    minute, and ``ShardError`` if it refuses.

    Args:
        url: ``s3://bucket/prefix``.
        storage_options: For ``s3fs.S3FileSystem``; credentials of the environment need none.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._bucket = Bucket(url, storage_options)

    @property
    def url(self) -> str:
        """Where the objects are."""
        return self._bucket.url

    def list_objects(self, *, below: bool = True) -> dict[str, StoredObject]:
        """All objects in the order of their names; those in folders only if ``below``."""
        delimiter = {} if below else {"Delimiter": "/"}

        async def work(client: Any) -> dict[str, StoredObject]:
            found: dict[str, StoredObject] = {}
            token: dict[str, str] = {}
            while True:
                page = await self._bucket.persist(
                    partial(
                        client.list_objects_v2,
                        Bucket=self._bucket.name,
                        Prefix=self._bucket.prefix,
                        **delimiter,
                        **token,
                    ),
                    "list",
                )
                now = _server_time(page)
                for item in page.get("Contents", ()):
                    found[item["Key"].removeprefix(self._bucket.prefix)] = StoredObject(
                        nbytes=item["Size"],
                        etag=item["ETag"],
                        age=(now - item["LastModified"]).total_seconds(),
                    )
                if not page.get("IsTruncated"):
                    return found
                token = {"ContinuationToken": page["NextContinuationToken"]}

        return self._bucket.run(work)

    def find(self, name: str) -> StoredObject | None:
        """One object, with its metadata; None if it isn't there."""
        return self._bucket.run(lambda client: self._find(client, name))

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of those objects that are there."""

        async def work(client: Any) -> dict[str, bytes]:
            turns = asyncio.Semaphore(_NUM_READS)

            async def read_one(name: str) -> tuple[str, bytes | None]:
                async def attempt() -> bytes | None:
                    try:
                        answer = await client.get_object(**self._bucket.key(name))
                    except Exception as error:
                        if http_status(error) == 404 and error_code(error) != "NoSuchBucket":
                            return None
                        raise
                    async with answer["Body"] as body:
                        data: bytes = await body.read()
                    return data

                async with turns:
                    return name, await self._bucket.persist(attempt, "read", name)

            pairs = await asyncio.gather(*map(read_one, names))
            return {name: data for name, data in pairs if data is not None}

        return self._bucket.run(work)

    def digest(self, name: str) -> str:
        """Hex sha256 of an object's bytes, all of which are read."""

        async def work(client: Any) -> str:
            async def attempt() -> str:
                digest = hashlib.sha256()
                answer = await client.get_object(**self._bucket.key(name))
                async with answer["Body"] as body:
                    while block := await body.read(_BLOCK_NBYTES):
                        digest.update(block)
                return digest.hexdigest()

            return await self._bucket.persist(attempt, "read", name)

        return self._bucket.run(work)

    def put(
        self,
        name: str,
        parts: Sequence[Buffer],
        *,
        only_if: str | None = None,
        metadata: Mapping[str, str] | None = None,
        patient: bool = True,
    ) -> str:
        """Put an object, whole or not at all, in parts if it is large.

        Args:
            name: Of the object.
            parts: Its bytes, one after the other.
            only_if: A condition: the ETag of the object that is to be replaced, or ``*`` if none
                may be there.
            metadata: To be noted beside what ``StoredObject`` describes.
            patient: Whether to try again after errors that may pass.

        Returns:
            Its ETag.

        Raises:
            ChangedError: If the condition does not hold; nothing is changed.
        """
        views = [memoryview(part).cast("B") for part in parts]
        digest = hashlib.sha256()
        for view in views:
            digest.update(view)
        write = uuid4().hex
        notes = {**(metadata or {}), _WRITE: write, _SHA256: digest.hexdigest()}
        condition = {} if only_if is None else {"IfMatch": only_if}
        if only_if == "*":
            condition = {"IfNoneMatch": "*"}

        async def work(client: Any) -> str:
            try:
                return await upload(
                    self._bucket, client, name, views, notes, condition, patient=patient
                )
            except ShardError as error:
                if condition and http_status(error) == 501:
                    raise ShardError(
                        f"{self.url}: the store takes no conditional writes (If-Match, "
                        "If-None-Match), which keep several writers apart; write into a local "
                        "folder and copy it"
                    ) from error
                if http_status(error) not in (404, 412) or error_code(error) == "NoSuchBucket":
                    raise
                # The condition failed, or an attempt had succeeded whose answer was lost.
                found = await self._find(client, name)
                if found is None or found.metadata.get(_WRITE) != write:
                    raise ChangedError(f"{self.url}/{name}") from error
                return found.etag

        return self._bucket.run(work)

    def remove(self, name: str, etag: str, check: Callable[[], object] = lambda: None) -> None:
        """Remove an object if it is still the one with this ETag, or there is none.

        Args:
            name: Of the object.
            etag: What it must be.
            check: Called before each attempt; what it raises is raised. Equal bytes of another
                writer have the same ETag: the condition alone does not spare them.

        Raises:
            ChangedError: If there is another one.
        """

        async def work(client: Any) -> None:
            async def attempt() -> None:
                check()
                try:
                    await client.delete_object(**self._bucket.key(name), IfMatch=etag)
                except Exception as error:
                    if http_status(error) == 412:
                        raise ChangedError(f"{self.url}/{name}") from error
                    if http_status(error) == 501:  # not every store has this condition
                        await self._remove_found(client, name, etag)
                    elif http_status(error) != 404:
                        raise

            await self._bucket.persist(attempt, "remove", name)

        self._bucket.run(work)

    async def _remove_found(self, client: Any, name: str, etag: str) -> None:
        found = await self._find(client, name)
        if found is None:
            return
        if found.etag != etag:
            raise ChangedError(f"{self.url}/{name}")
        await client.delete_object(**self._bucket.key(name))

    def abort_uploads(self, names: Iterable[str] | None) -> None:
        """Delete the parts of uploads of these objects, of all if None, that are not complete."""
        wanted = None if names is None else {self._bucket.prefix + name for name in names}

        async def work(client: Any) -> None:
            position: dict[str, str] = {}
            while True:
                page = await self._bucket.persist(
                    partial(
                        client.list_multipart_uploads,
                        Bucket=self._bucket.name,
                        Prefix=self._bucket.prefix,
                        **position,
                    ),
                    "list uploads to",
                )
                for started in page.get("Uploads", ()):
                    if wanted is None or started["Key"] in wanted:
                        await abort_upload(
                            self._bucket, client, started["Key"], started["UploadId"]
                        )
                if not page.get("IsTruncated"):
                    return
                position = {
                    "KeyMarker": page["NextKeyMarker"],
                    "UploadIdMarker": page["NextUploadIdMarker"],
                }

        self._bucket.run(work)

    async def _find(self, client: Any, name: str) -> StoredObject | None:
        async def attempt() -> Any:
            try:
                return await client.head_object(**self._bucket.key(name))
            except Exception as error:
                if http_status(error) == 404:
                    return None
                raise

        answer = await self._bucket.persist(attempt, "read", name)
        return answer and StoredObject(
            nbytes=answer["ContentLength"],
            etag=answer["ETag"],
            age=(_server_time(answer) - answer["LastModified"]).total_seconds(),
            metadata=answer.get("Metadata", {}),
        )


def _server_time(answer: Mapping[str, Any]) -> datetime:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
