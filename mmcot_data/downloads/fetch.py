"""Fetch files: several at a time, resumed, verified, whole or not there."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
from filelock import FileLock, Timeout

from mmcot_data import __version__
from mmcot_data.downloads.addresses import find_places
from mmcot_data.downloads.channel import Channel, StoppedError
from mmcot_data.downloads.disk_space import check_free_space
from mmcot_data.downloads.fetch_settings import FetchSettings
from mmcot_data.downloads.partial_file import part_nbytes, remove_leavings
from mmcot_data.downloads.remote_file import FetchedFile, RemoteFile
from mmcot_data.downloads.safe_names import why_unsafe
from mmcot_data.downloads.transfer import Transfer
from mmcot_data.errors import DownloadError

__all__ = ["fetch_files"]

_LOCK = ".download.lock"
_TICK = 0.1  # seconds between two reports of progress
_AGENT = f"mmcot/{__version__}"


def fetch_files(
    files: Sequence[RemoteFile],
    folder: Path,
    *,
    mirrors: Sequence[str] = (),
    num_parallel: int = 4,
    headers: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int | None], object] | None = None,
    on_file: Callable[[FetchedFile], object] | None = None,
    say: Callable[[str], object] | None = None,
    settings: FetchSettings | None = None,
) -> list[FetchedFile]:
    """Fetch files into a folder, each to its final place as soon as it is whole and verified.

    What is there is verified if a size or digest was published, and not fetched again. What was
    begun is continued, by this call or, after any end of the process, by the next one; see
    ``PartialFile``. All functions that are passed in are called in the calling thread.

    Args:
        files: What to fetch. Published sizes and digests are verified.
        folder: Where to; made if it is absent. One process at a time can fetch into it.
        mirrors: Base URLs. A file is looked for under each of them by the path and query of its
            own URL, then at its own host.
        num_parallel: Files at a time.
        headers: Sent to each file's own host, but never to a mirror or to where a redirect leads.
        on_progress: Called with the bytes that are there and those of all files (None while a size
            is unknown). The first can get smaller: when a file has to be begun anew.
        on_file: Called with each file when it is at its place, in the order in which they arrive.
        say: Called with what a user should know: that a server is busy, that a mirror lacks a file.
        settings: How patient to be.

    Returns:
        One for each of ``files``, in their order.

    Raises:
        DownloadError: If a file cannot be fetched, is not the one that was published, or is there
            and is another one, or if another process fetches into the folder. Files that were
            fetched before it stay, and so do the parts of the others.
        DiskFullError: If there is no room.
        ValueError: If ``num_parallel`` is not positive.
    """
    if num_parallel < 1:
        raise ValueError(f"num_parallel is {num_parallel}, expected 1 or more")
    settings = settings or FetchSettings()
    paths = _final_paths(files, folder)
    places = [find_places(file, mirrors) for file in files]
    with _sole_process(folder):
        remove_leavings({path.parent for path in paths})
        channel = _open_channel(files, paths)
        check_free_space(folder, channel.missing, f"fetching {len(files)} files")
        transfers = [
            Transfer(
                file=file,
                path=paths[number],
                places=places[number],
                headers=headers or {},
                settings=settings,
                number=number,
                channel=channel,
            )
            for number, file in enumerate(files)
        ]
        threads = _start_threads(transfers, num_parallel, settings, channel)
        try:
            fetched = _attend(
                channel, len(files), on_progress or _ignore, on_file or _ignore, say or _ignore
            )
        finally:
            channel.stop(threads)
    return [fetched[number] for number in range(len(files))]


def _final_paths(files: Sequence[RemoteFile], folder: Path) -> list[Path]:
    names = set()
    for file in files:
        reason = why_unsafe(file.name)
        if reason is None and file.name in names:
            reason = "another file has the same name"
        if reason is not None:
            raise DownloadError(f"a file is to be named {file.name!r}, but {reason}")
        names.add(file.name)
    return [folder / file.name for file in files]


@contextmanager
def _sole_process(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DownloadError(
            f"another process fetches files into {folder}: wait until it has finished, or choose "
            "another folder"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # whoever has opened it meanwhile notices that it is gone
        lock.release()


def _open_channel(files: Sequence[RemoteFile], paths: Sequence[Path]) -> Channel:
    there = [path.stat().st_size if path.is_file() else None for path in paths]
    return Channel(
        [part_nbytes(path) if n is None else n for path, n in zip(paths, there, strict=True)],
        [file.nbytes if n is None else n for file, n in zip(files, there, strict=True)],
    )


def _start_threads(
    transfers: Sequence[Transfer], most: int, settings: FetchSettings, channel: Channel
) -> list[threading.Thread]:
    todo: queue.SimpleQueue[Transfer] = queue.SimpleQueue()
    for transfer in transfers:
        todo.put(transfer)
    threads = [
        threading.Thread(
            target=_work, args=(todo, settings, channel), daemon=True, name=f"fetch-{number}"
        )
        for number in range(min(most, len(transfers)))
    ]
    for thread in threads:
        thread.start()
    return threads


def _work(todo: "queue.SimpleQueue[Transfer]", settings: FetchSettings, channel: Channel) -> None:
    """Fetch files, one after the other, until there are none left or the caller wants no more."""
    limits = httpx2.Timeout(settings.read_timeout, connect=settings.connect_timeout, pool=None)
    try:
        with httpx2.Client(timeout=limits, headers={"User-Agent": _AGENT}) as client:
            while True:
                channel.check()
                try:
                    transfer = todo.get_nowait()
                except queue.Empty:
                    return
                channel.events.put((transfer.number, transfer.run(client)))
    except StoppedError:
        return
    except BaseException as error:  # raised again in the caller's thread
        channel.events.put(error)


def _attend(
    channel: Channel,
    num_files: int,
    on_progress: Callable[[int, int | None], object],
    on_file: Callable[[FetchedFile], object],
    say: Callable[[str], object],
) -> dict[int, FetchedFile]:
    """Pass on what the threads tell until all files are there.

    Raises:
        BaseException: What a thread ended with.
    """
    fetched: dict[int, FetchedFile] = {}
    reported: tuple[int, int | None] | None = None
    due = 0.0
    while len(fetched) < num_files:
        try:
            event = channel.events.get(timeout=_TICK)
        except queue.Empty:
            event = None
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, str):
            say(event)
        elif event is not None:
            number, file = event
            fetched[number] = file
            on_file(file)
        now = time.monotonic()
        progress = channel.progress()
        if progress != reported and (now >= due or len(fetched) == num_files):
            on_progress(*progress)
            reported, due = progress, now + _TICK
    return fetched


def _ignore(*args: object) -> None:
    del args
