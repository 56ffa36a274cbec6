"""Put objects into a bucket, whole or not at all: at once, or in parts if they are large."""

import asyncio
import base64
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmcot_data.errors import ShardError
from mmcot_data.shards.bucket import Bucket, http_status

__all__ = ["abort_upload", "upload"]

logger = logging.getLogger(__name__)

PART_NBYTES = 16 * 2**20
"""What is larger is uploaded in parts of this size."""
_MAX_PARTS = 10_000
_NUM_STREAMS = 4


async def upload(
    bucket: Bucket,
    client: Any,
    name: str,
    views: Sequence[memoryview],
    metadata: Mapping[str, str],
    condition: Mapping[str, str],
    *,
    patient: bool = True,
) -> str:
    """Put an object; every request carries the MD5 of its bytes, which the store compares.

    Args:
        bucket: Where to.
        client: Of the bucket.
        name: Of the object.
        views: Its bytes, one after the other.
        metadata: To be noted beside it.
        condition: ``IfMatch`` or ``IfNoneMatch``, or empty.
        patient: Whether to try again after errors that may pass.

    Returns:
        Its ETag.

    Raises:
        ShardError: If the store refuses, also because of the condition.
    """
    if sum(view.nbytes for view in views) > PART_NBYTES:
        return await _put_parts(bucket, client, name, views, metadata, condition)
    body = b"".join(views)
    answer = await bucket.persist(
        lambda: client.put_object(
            **bucket.key(name), Body=body, ContentMD5=_md5(body), Metadata=metadata, **condition
        ),
        "write",
        name,
        patient=patient,
    )
    return str(answer["ETag"])


async def _put_parts(
    bucket: Bucket,
    client: Any,
    name: str,
    views: Sequence[memoryview],
    metadata: Mapping[str, str],
    condition: Mapping[str, str],
) -> str:
    started = await bucket.persist(
        lambda: client.create_multipart_upload(**bucket.key(name), Metadata=metadata),
        "write",
        name,
    )
    place = {**bucket.key(name), "UploadId": started["UploadId"]}
    nbytes = sum(view.nbytes for view in views)
    step = max(PART_NBYTES, -(-nbytes // _MAX_PARTS))
    turns = asyncio.Semaphore(_NUM_STREAMS)

    async def put_part(number: int) -> dict[str, Any]:
        async with turns:
            body = _cut(views, (number - 1) * step, number * step)
            answer = await bucket.persist(
                lambda: client.upload_part(
                    **place, PartNumber=number, Body=body, ContentMD5=_md5(body)
                ),
                "write",
                name,
            )
        checksums = {key: answer[key] for key in answer if key.startswith("Checksum")}
        checksums.pop("ChecksumType", None)
        return {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(put_part(number + 1)) for number in range(-(-nbytes // step))
            ]
        answer = await bucket.persist(
            lambda: client.complete_multipart_upload(
                **place, MultipartUpload={"Parts": [t.result() for t in tasks]}, **condition
            ),
            "write",
            name,
        )
    except BaseException as error:
        await abort_upload(bucket, client, place["Key"], place["UploadId"])
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from None
        raise
    return str(answer["ETag"])


async def abort_upload(bucket: Bucket, client: Any, key: str, upload: str) -> None:
    """Delete the parts of an upload that was not completed."""

    async def attempt() -> None:
        try:
            await client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload)
        except Exception as error:
            if http_status(error) != 404:
                raise

    try:
        await bucket.persist(attempt, "abort an upload to")
    except ShardError as error:
        logger.warning("%s; its parts stay until a lifecycle rule of the bucket ends it", error)


def _md5(body: bytes) -> str:
    """For Content-MD5, with which every store compares what has arrived."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _cut(views: Sequence[memoryview], start: int, stop: int) -> bytes:
    """The bytes from ``start`` to ``stop`` of views that follow each other."""
    pieces = []
    for view in views:
        pieces.append(view[max(start, 0) : max(stop, 0)])
        start, stop = start - view.nbytes, stop - view.nbytes
    return b"".join(pieces)
