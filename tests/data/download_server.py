"""Files served over HTTP as well, or as badly, as a test wants.

``serve_files`` starts a server on a free port of 127.0.0.1. What it holds is given by path: bytes,
a file on disk, or a ``VirtualFile`` that is made while it is sent. How each GET is answered is a
``Behaviour``: those queued for a path are used up first, one a request; then the path's own
standing one; then the server's.

    with serve_files({"/a.zip": content}) as server:
        server.queue("/a.zip", Behaviour(status=503), Behaviour(cut_after=1000))
        ...
        assert [request.range for request in server.gets("/a.zip")] == [None, None, "bytes=1000-"]
"""

import hashlib
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import numpy as np

__all__ = [
    "Behaviour",
    "Content",
    "DownloadServer",
    "Request",
    "VirtualFile",
    "noise_file",
    "serve_files",
]

_BLOCK = 2**18


@dataclass(frozen=True, kw_only=True)
class VirtualFile:
    """Content that is never held in memory as a whole."""

    nbytes: int
    read: Callable[[int, int], bytes]
    """The bytes from an offset on, as many as are asked for."""
    etag: str = '"virtual"'


Content = bytes | Path | VirtualFile


def noise_file(nbytes: int, seed: int = 0) -> VirtualFile:
    """Bytes that don't compress and don't repeat in steps of a power of two."""
    period = 2**20 - 3
    noise = np.random.default_rng(seed).bytes(period)
    twice = noise + noise

    def read(offset: int, size: int) -> bytes:
        size = max(0, min(size, nbytes - offset))
        parts = []
        while size > 0:
            start = offset % period
            part = twice[start : start + min(size, period)]
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    return VirtualFile(nbytes=nbytes, read=read, etag=f'"noise-{seed}-{nbytes}"')


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a GET is answered; the default is well."""

    status: int | None = None
    """In place of the file; its body is a few bytes of text."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Besides, or in place of, the usual ones."""
    redirect: str | None = None
    """A URL or path that the client is sent to, with ``status`` or 302."""
    content: Content | None = None
    """In place of the file."""
    seconds: float = 0.0
    """Before the answer."""
    without_ranges: bool = False
    without_if_range: bool = False
    """Whether a range is sent whatever If-Range says."""
    etag: str | None = "strong"
    """``strong`` and ``weak`` are made from the content; None for none; anything else as it is."""
    last_modified: str | None = "Tue, 05 Mar 2024 10:20:30 GMT"
    framing: Literal["length", "chunked", "close"] = "length"
    """``close``: nothing says how long the body is but the end of the connection."""
    declared_nbytes: int | None = None
    """A Content-Length that is not true."""
    most_nbytes: int | None = None
    """Of the answer to a range, as of servers that send a part of what was asked."""
    cut_after: int | None = None
    """Bytes of the body after which the connection ends."""
    reset: bool = False
    """Whether a cut is a reset, not an orderly end."""
    stall_after: int | None = None
    """Bytes of the body after which nothing comes any more, but the connection stays."""
    bytes_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """By name in lower case."""

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")

    @property
    def if_range(self) -> str | None:
        """The If-Range header."""
        return self.headers.get("if-range")

    @property
    def authorization(self) -> str | None:
        """The Authorization header."""
        return self.headers.get("authorization")


class DownloadServer(ThreadingHTTPServer):
    """Made by ``serve_files``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, files: Path | Mapping[str, Content]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = files if isinstance(files, Path) else None
        self.files: dict[str, Content] = {} if isinstance(files, Path) else dict(files)
        """By path, which begins with a slash; a path with ``?query`` goes before one without."""
        self.behaviours: dict[str, Behaviour] = {}
        """Of every GET and HEAD of a path for which none is queued."""
        self.behaviour = Behaviour()
        """Of the paths that have none of their own."""
        self.requests: list[Request] = []
        self.num_sent: dict[str, int] = {}
        """Bytes of bodies that were handed to the network, by path."""
        self.most_at_once = 0
        """GETs that were under way at a time."""
        self.ending = threading.Event()
        self._queued: dict[str, deque[Behaviour]] = {}
        self._lock = threading.Lock()
        self._num_active = 0

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.server_port}"

    def queue(self, path: str, *behaviours: Behaviour) -> None:
        """Answer the next GETs of a path so, one each."""
        self._queued.setdefault(path, deque()).extend(behaviours)

    def gets(self, path: str | None = None) -> list[Request]:
        """The GETs that came, of one path or of all."""
        return [
            request
            for request in list(self.requests)
            if request.method == "GET" and path in (None, request.path)
        ]

    def take_behaviour(self, request: Request) -> Behaviour:
        """What the next answer shall be like."""
        queued = self._queued.get(request.path)
        if request.method == "GET" and queued:
            return queued.popleft()
        return self.behaviours.get(request.path, self.behaviour)

    def find(self, request: Request) -> Content | None:
        """What is at a path."""
        for name in (f"{request.path}?{request.query}", request.path):
            if name in self.files:
                return self.files[name]
        path = None if self.folder is None else self.folder / unquote(request.path[1:])
        return path if path is not None and path.is_file() else None

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a GET that is under way."""
        with self._lock:
            self._num_active += 1
            self.most_at_once = max(self.most_at_once, self._num_active)
        try:
            yield
        finally:
            with self._lock:
                self._num_active -= 1

    def count_sent(self, path: str, nbytes: int) -> None:
        """Count bytes of a body."""
        with self._lock:
            self.num_sent[path] = self.num_sent.get(path, 0) + nbytes

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what is tested."""


@contextmanager
def serve_files(files: Path | Mapping[str, Content]) -> Iterator[DownloadServer]:
    """Serve files for as long as the block.

    Args:
        files: A folder, or what is to be found by path, such as ``{"/data/a.zip": b"…"}``.
    """
    with DownloadServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            server.shutdown()
            thread.join()


class _CutError(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    server: DownloadServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        with self.server.counted():
            self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=url.path,
            query=url.query,
            headers={name.lower(): value for name, value in self.headers.items()},
        )
        self.server.requests.append(request)
        behaviour = self.server.take_behaviour(request)
        self.server.ending.wait(behaviour.seconds)
        content = behaviour.content if behaviour.content is not None else self.server.find(request)
        if behaviour.redirect is not None:
            headers = {"Location": behaviour.redirect}
            self._send(behaviour, behaviour.status or 302, headers, b"redirected\n")
        elif behaviour.status is not None and behaviour.status != 200:
            self._send(behaviour, behaviour.status, {}, b"refused\n")
        elif content is None:
            self._send(behaviour, 404, {}, b"not found\n")
        else:
            self._send_content(request, behaviour, _as_virtual(content))

    def _send_content(self, request: Request, behaviour: Behaviour, file: VirtualFile) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        etag = {"strong": file.etag, "weak": f"W/{file.etag}"}.get(
            behaviour.etag or "", behaviour.etag
        )
        if etag is not None:
            headers["ETag"] = etag
        if behaviour.last_modified is not None:
            headers["Last-Modified"] = behaviour.last_modified
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range or "")
        if (
            asked is None
            or behaviour.without_ranges
            or (not behaviour.without_if_range and not self._is_unchanged(request, headers))
        ):
            self._send(behaviour, 200, headers, file)
            return
        start = int(asked[1])
        if start >= file.nbytes:
            headers["Content-Range"] = f"bytes */{file.nbytes}"
            self._send(replace(behaviour, framing="length"), 416, headers, b"")
            return
        end = min(int(asked[2]) + 1 if asked[2] else file.nbytes, file.nbytes)
        if behaviour.most_nbytes is not None:
            end = min(end, start + behaviour.most_nbytes)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.nbytes}"
        part = VirtualFile(
            nbytes=end - start, read=lambda offset, size: file.read(start + offset, size)
        )
        self._send(behaviour, 206, headers, part)

    def _is_unchanged(self, request: Request, headers: Mapping[str, str]) -> bool:
        known = request.if_range
        if known is None:
            return True
        if known.startswith("W/"):  # a weak tag never matches
            return False
        return known in (headers.get("ETag"), headers.get("Last-Modified"))

    def _send(
        self, behaviour: Behaviour, status: int, headers: dict[str, str], body: Content
    ) -> None:
        file = _as_virtual(body)
        headers = {**headers, **behaviour.headers}
        if behaviour.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        elif behaviour.framing == "length":
            declared = behaviour.declared_nbytes
            headers["Content-Length"] = str(file.nbytes if declared is None else declared)
        if behaviour.framing == "close" or behaviour.declared_nbytes is not None:
            headers["Connection"] = "close"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            for block in self._paced_blocks(behaviour, file):
                self.server.count_sent(urlsplit(self.path).path, len(block))
                if behaviour.framing == "chunked":
                    block = b"%x\r\n%b\r\n" % (len(block), block)
                self.wfile.write(block)
            if behaviour.framing == "chunked":
                self.wfile.write(b"0\r\n\r\n")
        except _CutError:
            self.close_connection = True
            if behaviour.reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _paced_blocks(self, behaviour: Behaviour, file: VirtualFile) -> Iterator[bytes]:
        limits = [at for at in (behaviour.cut_after, behaviour.stall_after) if at is not None]
        end = min([file.nbytes, *limits])
        rate = behaviour.bytes_per_second
        size = _BLOCK if rate is None else max(1, int(rate / 50))
        for offset in range(0, end, size):
            yield file.read(offset, min(size, end - offset))
            if rate is not None:
                time.sleep(size / rate)
        if behaviour.stall_after is not None and end == behaviour.stall_after:
            self.server.ending.wait()
            raise _CutError
        if behaviour.cut_after is not None and end == behaviour.cut_after:
            raise _CutError


def _as_virtual(content: Content) -> VirtualFile:
    if isinstance(content, VirtualFile):
        return content
    if isinstance(content, bytes):
        return VirtualFile(
            nbytes=len(content),
            read=lambda offset, size: content[offset : offset + size],
            etag=_etag(content),
        )
    stat = content.stat()

    def read(offset: int, size: int) -> bytes:
        with content.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    return VirtualFile(nbytes=stat.st_size, read=read, etag=etag)


@cache
def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'
