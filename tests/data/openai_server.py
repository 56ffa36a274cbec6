"""A server that speaks like an OpenAI-compatible one, and badly if so told."""

import json
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Fault", "OpenAIServer", "serve_openai"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An answer in place of a completion."""

    status: int = 200
    body: object = None
    """JSON, or raw bytes."""
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False
    """The connection ends after half of the body."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sent."""

    path: str
    body: dict
    headers: dict[str, str]
    """By name in lower case."""
    time: float

    @property
    def authorization(self):
        return self.headers.get("authorization")


class OpenAIServer(ThreadingHTTPServer):
    """Answers at a free port of 127.0.0.1."""

    daemon_threads = True

    def __init__(self, reply, key=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        """Given a request's JSON, returns a text, (text, finish reason), or a Fault."""
        self.key = key
        self.faults: deque[Fault] = deque()
        """Of the next requests, one each."""
        self.seconds = 0.0
        """That every answer takes."""
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.num_waiting = self.most_waiting = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def prompts(self):
        return [request.body["messages"][0]["content"] for request in self.requests]

    def answer(self, request):
        """The status, body and fault of an answer."""
        if self.key is not None and request.authorization != f"Bearer {self.key}":
            return Fault(status=401, body={"error": {"message": "Incorrect API key provided"}})
        if request.path != "/v1/chat/completions":
            return Fault(status=404, body={"error": {"message": "no such path"}})
        found = self.faults.popleft() if self.faults else self.reply(request.body)
        if isinstance(found, Fault):
            return found
        text, reason = found if isinstance(found, tuple) else (found, "stop")
        for stop in request.body.get("stop", []):
            text = text.partition(stop)[0] if text is not None else None
        return Fault(
            body={
                "id": "c",
                "object": "chat.completion",
                "created": 0,
                "model": request.body["model"],
                "system_fingerprint": "fp_1",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": reason,
                    }
                ],
            }
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OpenAIServer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(
            path=self.path,
            body=body,
            headers={name.lower(): value for name, value in self.headers.items()},
            time=time.monotonic(),
        )
        server = self.server
        with server.lock:
            server.requests.append(request)
            server.num_waiting += 1
            server.most_waiting = max(server.most_waiting, server.num_waiting)
            fault = server.answer(request)
        time.sleep(server.seconds + fault.seconds)
        with server.lock:
            server.num_waiting -= 1
        content = fault.body if isinstance(fault.body, bytes) else json.dumps(fault.body).encode()
        try:
            self.send_response(fault.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            for name, value in (headers | fault.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if fault.is_cut else content)
        except OSError:  # the client did not wait
            self.close_connection = True
        if fault.is_cut:
            self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serve_openai(reply, key=None):
    server = OpenAIServer(reply, key)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
