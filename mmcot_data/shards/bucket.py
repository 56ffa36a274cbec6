"""A connection to an S3 bucket, for writing, and what its errors mean.

s3fs knows how to connect (environment, profiles, endpoint); the requests are those of its botocore
client, since fsspec has no words for conditions, checksums and the server's clock. Each process has
a client of its own: a connection open at a fork would belong to both.
"""

import asyncio
import importlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from mmcot_data.errors import ShardError, how_to_install
from mmcot_data.shards.persistence import persist

__all__ = ["Bucket", "error_code", "http_status"]

_T = TypeVar("_T")

_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further attempt
_LONGEST_ATTEMPT, _LONGEST_HASTY_ATTEMPT = 300.0, 10.0
_LONGEST_CLEAN_UP = 10.0


_CONNECTIONS: dict[tuple[object, ...], tuple[Any, asyncio.Lock]] = {}
"""s3fs's file systems by process, options and environment, since connecting takes a fifth of a
second; each with what keeps it from connecting twice."""


class Bucket:
    """The bucket and the prefix of a URL; can be pickled.

    Args:
        url: ``s3://bucket/prefix``.
        storage_options: For ``s3fs.S3FileSystem``; credentials of the environment need none.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.url = url.rstrip("/")
        self.storage_options = storage_options
        self.name, _, prefix = self.url.partition("://")[2].partition("/")
        self.prefix = f"{prefix}/" if prefix else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.storage_options)

    async def persist(
        self,
        call: Callable[[], Awaitable[_T]],
        verb: str,
        name: str = "",
        *,
        patient: bool = True,
    ) -> _T:
        """Await a request, again and again while failure may pass, unless not ``patient``.

        Args:
            call: Makes the request.
            verb: What it does, for errors.
            name: Of the object.
            patient: Whether to try again.

        Raises:
            StoreError: If every attempt failed for a reason that may pass.
            ShardError: If the store refuses.
        """
        return await persist(
            call,
            f"cannot {verb} {self.url}/{name}",
            delays=_DELAYS if patient else (),
            longest_attempt=_LONGEST_ATTEMPT if patient else _LONGEST_HASTY_ATTEMPT,
        )

    def key(self, name: str) -> dict[str, str]:
        """How requests name an object."""
        return {"Bucket": self.name, "Key": self.prefix + name}

    def run(self, work: Callable[[Any], Coroutine[Any, Any, _T]]) -> _T:
        """Await ``work`` with a client, on fsspec's event loop; an interrupted one cleans up."""
        filesystem, connecting = self._connection()
        ended = threading.Event()

        async def connected() -> _T:
            try:
                async with connecting:
                    client = await self.persist(filesystem.set_session, "connect to")
                return await work(client)
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(connected(), filesystem.loop)
        try:
            return future.result()
        except BaseException:  # an interrupt: what ``work`` itself raised has ended it
            if future.cancel():
                ended.wait(_LONGEST_CLEAN_UP)
            raise

    def _connection(self) -> tuple[Any, asyncio.Lock]:
        key = (os.getpid(), repr(self.storage_options), *_environment())
        if (connection := _CONNECTIONS.get(key)) is None:
            try:
                kind = importlib.import_module("fsspec").get_filesystem_class("s3")
                filesystem = kind(skip_instance_cache=True, **(self.storage_options or {}))
            except ImportError as error:
                raise ShardError(f"{self.url}: {error}; {how_to_install('cloud')}") from error
            connection = _CONNECTIONS.setdefault(key, (filesystem, asyncio.Lock()))
        return connection


def _environment() -> list[tuple[str, str]]:
    names = ("AWS_", "FSSPEC_")
    return sorted((name, value) for name, value in os.environ.items() if name.startswith(names))


def http_status(error: BaseException) -> int | None:
    """The HTTP status that botocore was answered."""
    for each in (error, error.__cause__):
        if isinstance(response := getattr(each, "response", None), dict):
            return int(response["ResponseMetadata"]["HTTPStatusCode"])
    return None


def error_code(error: BaseException) -> str | None:
    """S3's word for an error."""
    for each in (error, error.__cause__):
        if isinstance(response := getattr(each, "response", None), dict):
            return str(response.get("Error", {}).get("Code"))
    return None
