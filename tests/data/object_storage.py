"""A real S3 server (moto) that notes what is asked of it, and fails where it is told to."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import parse_qs

import moto.s3.models
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

__all__ = ["Asked", "ObjectServer", "serve_objects"]

_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>told to fail</Message></Error>"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a client asked for."""

    method: str
    bucket: str
    key: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def is_part(self) -> bool:
        """Whether a part of an object is uploaded."""
        return self.method == "PUT" and "partNumber" in self.query


@dataclass
class ObjectServer:
    """The server; everything is in memory."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    fail: Callable[[Asked], tuple[int, str] | None] = lambda _: None
    """The status and the code of the answer to a request that is to fail."""
    lose_answer: Callable[[Asked], bool] = lambda _: False
    """Whether the answer to a request is replaced by an error after it was carried out."""

    def make_bucket(self, name: str) -> None:
        """An empty bucket."""
        self._backend.create_bucket(name, "us-east-1")

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """What a bucket holds below a prefix, read past the server."""
        keys = self._backend.get_bucket(bucket).keys
        found = {
            name.removeprefix(prefix): keys[name] for name in list(keys) if name.startswith(prefix)
        }
        return {name: key.value for name, key in found.items()}

    def put(
        self, bucket: str, key: str, content: bytes, metadata: Mapping[str, str] | None = None
    ) -> None:
        """An object that something else put there."""
        self._backend.put_object(bucket, key, content).set_metadata(metadata or {})

    def copy(self, source: str, bucket: str) -> None:
        """Make a bucket that holds what another one does."""
        self.make_bucket(bucket)
        for name, key in list(self._backend.get_bucket(source).keys.items()):
            self.put(bucket, name, key.value, key.metadata)

    def begin_upload(self, bucket: str, key: str) -> None:
        """An upload that nobody continues."""
        self._backend.create_multipart_upload(bucket, key, {}, "STANDARD", None, None, None, None)

    def remove(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self._backend.delete_object(bucket, key)

    def age(self, bucket: str, key: str, seconds: float) -> None:
        """Let an object be older than it is."""
        self._backend.get_object(bucket, key).last_modified -= timedelta(seconds=seconds)

    def uploads(self, bucket: str) -> list[str]:
        """Keys of the uploads that were neither completed nor aborted."""
        return [each.key_name for each in self._backend.get_bucket(bucket).multiparts.values()]

    ignores_conditions: bool = False

    @property
    def _backend(self):
        return s3_backends["123456789012"]["aws"]

    def answer(self, application, environ, start_response):
        """WSGI: note the request, fail or pass it on."""
        _, bucket, *key = environ["PATH_INFO"].split("/", 2)
        headers = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        asked = Asked(
            method=environ["REQUEST_METHOD"],
            bucket=bucket,
            key="".join(key),
            query=parse_qs(environ["QUERY_STRING"], keep_blank_values=True),
            headers=headers,
        )
        self.asked.append(asked)
        if self.ignores_conditions:
            for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
                environ.pop(name, None)
        failure = self.fail(asked)
        if failure is None and self.lose_answer(asked):
            b"".join(application(environ, lambda *_: None))
            failure = 503, "ServiceUnavailable"
        elif failure is None:
            return application(environ, start_response)
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code = failure
        start_response(f"{status} {code}", [("Content-Type", "application/xml")])
        return [_ERROR.format(code).encode()]


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type, message, *args):
        del type, message, args


@contextmanager
def serve_objects() -> Iterator[ObjectServer]:
    """Run the server for as long as the block; parts may have any size."""
    moto.s3.models.S3_UPLOAD_PART_MIN_SIZE = 1
    application = DomainDispatcherApplication(create_backend_app)
    served = ObjectServer()
    server = make_server(
        "127.0.0.1",
        0,
        lambda environ, start: served.answer(application, environ, start),
        threaded=True,
        request_handler=_Quiet,
    )
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
