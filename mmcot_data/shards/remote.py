"""Files at s3://, gs://, http(s):// and other URLs, and a local cache of them.

A cached file is named by its sha256, which is computed while it arrives. Every call opens a client
of its own and closes it: a connection open at a fork would belong to both processes.
"""

import asyncio
import hashlib
import importlib
import os
import re
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

from filelock import FileLock

from mmcot_data.errors import DiskFullError, ShardError, how_to_install
from mmcot_data.files import replace_file
from mmcot_data.shards.persistence import StoreError, diagnose, persist

__all__ = ["FileCache", "is_remote", "read_remote"]

_T = TypeVar("_T")

_BLOCK_NBYTES = 4 * 2**20
_NUM_STREAMS = 4
_DELAYS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
_LONGEST_READ = 300.0  # seconds that one block may take


def is_remote(path: str | Path) -> bool:
    """Whether a place is a URL; if not, it is a path.

    Raises:
        ShardError: For ``file://``, and for a URL that lost a slash because it was made a Path.
    """
    match = re.match(r"([a-z][a-z0-9+.-]+):/(/?)(.*)", str(path), re.IGNORECASE)
    if match is None:
        return False
    scheme, slash, rest = match.groups()
    if scheme.lower() == "file":
        raise ShardError(f"{path}: expected a path, found a file URL; give /{rest.lstrip('/')}")
    if not slash and not Path(path).exists():
        raise ShardError(
            f"{path}: expected a URL with two slashes, found one, which is what pathlib.Path "
            f"leaves; give the string {scheme}://{rest}"
        )
    return bool(slash)


def read_remote(url: str, storage_options: Mapping[str, object] | None = None) -> bytes:
    """Read a small file as it is now, past every cache of this process.

    Args:
        url: Where the file is.
        storage_options: As for ``FileCache.fetch``.

    Raises:
        ShardError: If it is absent, refused or out of reach.
    """
    file = _RemoteFile(url, storage_options)
    return file.run(file.read)


class FileCache:
    """Local copies of remote files; can be pickled, and used in forked processes.

    Args:
        root: Folder of the cache; ``$MMCOT_CACHE`` if None, else ``$XDG_CACHE_HOME/mmcot``, else
            ``~/.cache/mmcot``.
    """

    def __init__(self, root: Path | None = None) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self.root = Path(root or os.environ.get("MMCOT_CACHE") or f"{base}/mmcot").expanduser()

    def fetch(
        self,
        url: str,
        *,
        sha256: str,
        nbytes: int,
        on_progress: Callable[[int], object] | None = None,
        storage_options: Mapping[str, object] | None = None,
    ) -> Path:
        """The local copy of a file, downloaded if there is none.

        Of several processes that want the same file one downloads it and the others wait.

        Args:
            url: Where the file is.
            sha256: Hex digest of its bytes.
            nbytes: Its size.
            on_progress: Called from another thread with the number of bytes that have arrived.
            storage_options: For the fsspec file system of the URL, such as ``endpoint_url``,
                ``anon`` (s3), ``token`` (gs) or ``headers`` (http). Credentials of the environment
                need none.

        Raises:
            ShardError: If the file is absent, refused, out of reach or another one, or if the
                cache cannot be written.
            DiskFullError: If there is no room for it.
        """
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ShardError(f"{url}: expected a sha256 of 64 hex digits, found {sha256!r}")
        suffix = PurePosixPath(url.partition("?")[0]).suffix
        path = self.root / "files" / sha256[:2] / f"{sha256}{suffix}"
        try:
            if _has_size(path, nbytes):
                return path
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not _has_size(path, nbytes):
                    for left in path.parent.glob(f".{path.name}.*.tmp"):
                        left.unlink()  # by a process that was killed
                    file = _RemoteFile(url, storage_options)
                    replace_file(path, partial(file.download, sha256, nbytes, on_progress))
        except StoreError:
            raise
        except OSError as error:
            raise ShardError(
                f"the cache {self.root} cannot be written ({error}); set MMCOT_CACHE to a folder "
                "that can"
            ) from error
        else:
            return path


class _RemoteFile:
    def __init__(self, url: str, storage_options: Mapping[str, object] | None) -> None:
        self._url = url
        scheme = url.partition("://")[0]
        try:
            if scheme in ("gs", "gcs"):
                # fsspec's own choice asks for the bucket's kind by gRPC, which breaks at a fork.
                kind = importlib.import_module("gcsfs.core").GCSFileSystem
            else:
                kind = importlib.import_module("fsspec").get_filesystem_class(scheme)
            options = {**kind._get_kwargs_from_urls(url), **(storage_options or {})}
            if kind.async_impl:
                options["asynchronous"] = True
            self._filesystem = kind(**options, skip_instance_cache=True)
            self._path = kind._strip_protocol(url)
        except ImportError as error:
            raise ShardError(f"{url}: {error}; {how_to_install('cloud')}") from error
        except Exception as error:
            raise ShardError(f"cannot read {url}: {diagnose(error)[0]}") from error

    def run(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Await ``work`` on fsspec's event loop, with a client that is closed at the end."""
        from fsspec.asyn import get_loop, sync

        async def connected() -> _T:
            names = ("set_session", "_set_session")
            connect = next((m for n in names if (m := getattr(self._filesystem, n, None))), None)
            client = await self._persist(connect) if connect else None
            try:
                return await work()
            finally:
                if client is not None:
                    await client.close()

        return sync(get_loop(), connected)

    async def read(self, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes from ``start`` to ``end``; all of them from a server without ranges."""
        if self._filesystem.async_impl:
            cat_file = partial(self._filesystem._cat_file, self._path, start=start, end=end)
        else:
            # Without this option fsspec reads ahead beyond the range.
            cat_file = partial(self._filesystem.cat_file, self._path, start, end, cache_type="none")
            cat_file = partial(asyncio.to_thread, cat_file)
        return await self._persist(cat_file)

    def download(
        self, sha256: str, nbytes: int, on_progress: Callable[[int], object] | None, path: Path
    ) -> None:
        """Write the file to ``path`` if it is the one expected."""
        if (free := shutil.disk_usage(path.parent).free) < nbytes:
            raise DiskFullError(
                f"{self._url} has {nbytes} bytes, and {free} are free at {path.parent}; make room "
                "or set MMCOT_CACHE to another folder"
            )
        digest = hashlib.sha256()
        with path.open("wb") as out:

            def write(block: bytes) -> None:
                digest.update(block)
                out.write(block)
                if on_progress is not None:
                    on_progress(out.tell())

            self.run(partial(self._read_blocks, nbytes, write))
        if digest.hexdigest() != sha256:
            raise ShardError(
                f"{self._url} is not the file that was asked for: expected sha256 {sha256}, found "
                f"{digest.hexdigest()}; it was changed or damaged: upload it again"
            )

    async def _read_blocks(self, nbytes: int, write: Callable[[bytes], object]) -> None:
        coming: deque[asyncio.Task[bytes]] = deque()
        starts = iter(range(0, nbytes, _BLOCK_NBYTES))
        received = 0
        try:
            while (left := nbytes - received) > 0:
                # The first block comes alone: a server without ranges sends the whole file.
                for start in islice(starts, (_NUM_STREAMS if received else 1) - len(coming)):
                    end = min(start + _BLOCK_NBYTES, nbytes)
                    coming.append(asyncio.create_task(self.read(start, end)))
                block = await coming.popleft()
                received += len(block)
                if len(block) not in (min(left, _BLOCK_NBYTES), left):
                    raise ShardError(
                        f"{self._url} is not the file that was asked for: expected {nbytes} bytes, "
                        f"found {received}"
                    )
                await asyncio.to_thread(write, block)
        finally:
            for task in coming:
                task.cancel()
            await asyncio.gather(*coming, return_exceptions=True)

    async def _persist(self, call: Callable[[], Awaitable[_T]]) -> _T:
        return await persist(
            call, f"cannot read {self._url}", delays=_DELAYS, longest_attempt=_LONGEST_READ
        )


def _has_size(path: Path, nbytes: int) -> bool:
    try:
        return path.stat().st_size == nbytes
    except FileNotFoundError:
        return False
