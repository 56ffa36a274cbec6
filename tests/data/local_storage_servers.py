"""A folder served as plain HTTP, S3 and Google Cloud Storage, badly if so told.

The file ``bucket/key`` of the folder is at once ``http://…/bucket/key``, ``s3://bucket/key`` with
the server as ``endpoint_url``, and ``gs://bucket/key`` with it as ``STORAGE_EMULATOR_HOST``. What
the real clients send to read a file is answered as the real stores answer it.
"""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Fault", "Request", "StorageServer", "serve_folder"]

_S3_CODES = {403: "AccessDenied", 404: "NoSuchKey", 416: "InvalidRange", 503: "ServiceUnavailable"}
_GCS_OBJECT = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/(.+)")
_S3_EMPTY_LIST = "<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """How a GET is answered; the default is well."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    """In place of the file."""
    cut_after: int | None = None
    """Bytes of the body after which the connection ends."""
    without_length: bool = False
    """Nothing says how long the body is, so that a cut one looks whole."""
    without_ranges: bool = False
    seconds: float = 0.0
    """Before the answer."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    range: str | None
    authorization: str


class StorageServer(ThreadingHTTPServer):
    """Serves ``folder`` at a free port of 127.0.0.1."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: deque[Fault] = deque()
        """Of the next GETs, one each."""
        self.default = Fault()
        """Of every other GET."""
        self.access_key: str | None = None
        """If set, requests must be signed with it, as S3 does."""
        self.requests: list[Request] = []
        self.num_waiting = 0
        self.most_waiting = 0
        """Requests that were under way at a time."""

    @property
    def url(self) -> str:
        """Where the folder is as plain HTTP, and the endpoint of both stores."""
        return f"http://127.0.0.1:{self.server_port}"

    def gets(self) -> list[Request]:
        """The GETs that came."""
        return [request for request in self.requests if request.method == "GET"]


@contextmanager
def serve_folder(folder: Path) -> Iterator[StorageServer]:
    """Serve a folder for as long as the block."""
    with StorageServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: StorageServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_HEAD(self) -> None:
        self._answer(Fault())

    def do_GET(self) -> None:
        faults = self.server.faults
        self._answer(faults.popleft() if faults else self.server.default)

    def _answer(self, fault: Fault) -> None:
        url = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=url.path,
            range=self.headers["Range"],
            authorization=self.headers["Authorization"] or "",
        )
        self.server.requests.append(request)
        self.server.num_waiting += 1
        self.server.most_waiting = max(self.server.most_waiting, self.server.num_waiting)
        time.sleep(fault.seconds)
        self.server.num_waiting -= 1
        gcs = _GCS_OBJECT.fullmatch(url.path)
        path = self.server.folder / unquote("/".join(gcs.groups()) if gcs else url.path[1:])
        key = self.server.access_key
        if fault.status is not None:
            self._refuse(fault.status, fault.headers)
        elif key is not None and f"Credential={key}/" not in request.authorization:
            self._refuse(403, {})
        elif "list-type" in parse_qs(url.query):
            self._send(200, {"Content-Type": "application/xml"}, _S3_EMPTY_LIST.encode())
        elif not path.is_file():
            self._refuse(404, {})
        else:
            self._send_file(path, fault)

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        if "/storage/v1/" in self.path:
            body = json.dumps({"error": {"code": status, "message": "refused"}})
        else:
            code = _S3_CODES.get(status, str(status))
            body = f"<Error><Code>{code}</Code><Message>refused</Message></Error>"
        self._send(status, headers, body.encode())

    def _send_file(self, path: Path, fault: Fault) -> None:
        content = path.read_bytes() if fault.content is None else fault.content
        headers = {"ETag": '"1"', "Last-Modified": formatdate(usegmt=True)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if asked is None or fault.without_ranges:
            self._send(200, headers, content, fault)
            return
        start = int(asked[1])
        if start >= len(content):
            self._refuse(416, {})
            return
        body = content[start : int(asked[2]) + 1 if asked[2] else None]
        headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        self._send(206, headers, body, fault)

    def _send(
        self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None = None
    ) -> None:
        fault = fault or Fault()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault.without_length:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault.cut_after is not None:
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(body[: fault.cut_after])
