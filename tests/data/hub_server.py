"""A Hugging Face hub on 127.0.0.1: whoami, repositories, and both ways of uploading files.

``serve_hub`` starts one. Files are kept as they arrive: those of a commit's own lines, and those
that were sent to the LFS store before it (paths that end with ``lfs_suffix``), whose sha256 is
compared with what the client says.

    with serve_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        ...
        assert hub.repositories["me/name"].files["README.md"] == b"..."
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["TOKEN", "HubServer", "Repository", "serve_hub"]

TOKEN = "hf_secretOfTheTests"


@dataclass
class Repository:
    """What is in one repository."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    """Their messages."""


class HubServer(ThreadingHTTPServer):
    """Made by ``serve_hub``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.role = "write"
        """Of the token."""
        self.lfs_suffix = "no file has this"
        self.refusals: dict[str, int] = {}
        """Status by the end of a path that is refused."""
        self.requests: list[str] = []
        """Methods and paths."""
        self.lfs_objects: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """A hub for as long as the block; its user is ``me``, in the organization ``ours``."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        status, answer = self._reply(path, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reply(self, path: str, body: bytes) -> tuple[int, Any]:
        hub = self.server
        for end, status in hub.refusals.items():
            if path.endswith(end):
                return status, {"error": "refused by the test"}
        if path.startswith("/store/"):  # as storage, which gets no token
            hub.lfs_objects[path.removeprefix("/store/")] = body
            return 200, {}
        if TOKEN not in self.headers.get("Authorization", ""):
            return 401, {"error": "Invalid credentials"}
        if path == "/api/whoami-v2":
            token = {"accessToken": {"displayName": "tests", "role": hub.role}}
            return 200, {"name": "me", "type": "user", "orgs": [{"name": "ours"}], "auth": token}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        parts = path.strip("/").split("/")
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {
                "objects": [self._lfs_object(each) for each in json.loads(body)["objects"]]
            }
        repository = hub.repositories.get("/".join(parts[2:4]))
        if repository is None:
            return 404, {"error": "Repository not found"}
        if parts[4] == "tree":
            return 200, [
                {"type": "file", "path": name, "size": len(content), "oid": _git_oid(content)}
                for name, content in repository.files.items()
            ]
        if parts[4] == "preupload":
            return 200, {
                "files": [self._mode(each, repository) for each in json.loads(body)["files"]]
            }
        if parts[4] == "commit":
            return self._commit("/".join(parts[2:4]), body)
        if parts[4] == "revision":
            return 200, {"id": "/".join(parts[2:4]), "sha": "0" * 40}
        raise AssertionError(path)

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
        url = {"url": f"{self.server.url}/{name}"}
        if name in self.server.repositories:
            return 409, url | {"error": "You already created this model repo"}
        private = wanted.get("visibility") == "private"
        self.server.repositories[name] = Repository(private=private)
        return 200, url

    def _mode(self, file: dict[str, Any], repository: Repository) -> dict[str, Any]:
        is_lfs = file["path"].endswith(self.server.lfs_suffix)
        there = repository.files.get(file["path"])
        return {
            "path": file["path"],
            "uploadMode": "lfs" if is_lfs else "regular",
            "shouldIgnore": False,
            "oid": None if there is None or is_lfs else _git_oid(there),
        }

    def _lfs_object(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.server.url}/store/{wanted['oid']}"
        return wanted | {"actions": {"upload": {"href": href}}}

    def _commit(self, name: str, body: bytes) -> tuple[int, Any]:
        repository = self.server.repositories[name]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.commits.append(value["summary"])
            elif entry["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self.server.lfs_objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                assert len(content) == value["size"]
                repository.files[value["path"]] = content
            elif entry["key"] == "deletedFile":
                del repository.files[value["path"]]
            else:
                raise AssertionError(entry)
        url = f"{self.server.url}/{name}/commit/{'0' * 40}"
        return 200, {"success": True, "commitOid": "0" * 40, "commitUrl": url}


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
