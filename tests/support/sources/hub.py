"""A small Hugging Face hub on loopback: enough for the real huggingface_hub client, and the faults a test asks for.

A client finds it by the environment of `Hub.env`, which the client reads when it is imported: run it in a subprocess.
"""

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

COMMIT = "c0ffee" * 6 + "c0de"
TOKEN = "hf_test"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass(slots=True)
class Hub:
    """What the hub holds and how it misbehaves; a test may change it while it runs."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # "owner/name/file" -> content
    gated: bool = False  # only TOKEN may read
    cut_after: int | None = None  # the next download ends after that many bytes
    reset_after: int | None = None  # the same, with a TCP reset
    stall_after: int | None = None  # the next download stops there and keeps the connection
    claimed_bytes: int | None = None  # the size a HEAD names instead of the true one
    damaged: bool = False  # bytes differ from the checksum
    status: int = 200  # of every answer, unless 200
    elsewhere: bool = False  # content is kept on another host, to which a request is sent on, as the real one does
    no_ranges: bool = False  # a Range is ignored: the answer is the whole, with status 200
    etag: str | None = None  # instead of the SHA-256
    commit: str = COMMIT
    header: tuple[str, str] | None = None  # one more, on every answer
    more_bytes: int = 0  # of each download, beyond what was announced
    shifted: bool = False  # what comes for a Range is from another place, and the answer says so
    lost_bytes: int = 0  # of each Range: that many fewer come, and the answer says so
    requests: list[Request] = field(default_factory=list)
    sent_bytes: int = 0  # of files' content
    closing: threading.Event = field(default_factory=threading.Event)

    def add(self, repo: str, filename: str, content: bytes) -> None:
        self.files[f"{repo}/{filename}"] = content

    def reset(self) -> None:
        """Forget every file, request and fault."""
        for one in fields(self):
            if one.name not in ("url", "closing"):
                setattr(self, one.name, getattr(Hub(), one.name))

    def env(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """What a client's environment must have to use this hub, with its cache in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            **({"HF_TOKEN": token} if token else {}),
        }

    def downloads(self) -> list[Request]:
        """The requests for content, in their order."""
        return [request for request in self.requests if request.method == "GET" and "/resolve/" in request.path]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub without files; its port is free again after the block."""
    server = _Server()
    server.hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.hub
    finally:
        server.hub.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = Hub()

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        self.close_request(request)  # without the polite shutdown(), so that a reset is one

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return cast("_Server", self.server).hub

    def do_HEAD(self) -> None:
        content = self._asked("HEAD")
        if content is not None:
            self._head(200, content, length=self.hub.claimed_bytes or len(content))

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self._describe(self.path.removeprefix("/api/models/").partition("?")[0])
        elif (content := self._asked("GET")) is not None:
            start, end = self._range(len(content))
            partial = start > 0 or end < len(content)
            self._head(206 if partial else 200, content, length=end - start, start=start)
            if self.hub.shifted and start:
                content = content[:start] + content[: end - start]
            self._send(content[: end - 1] + b"?" if self.hub.damaged else content[:end], start)

    def _range(self, size: int) -> tuple[int, int]:
        """Start and end of what is to be sent."""
        if self.hub.no_ranges or not self.headers["Range"]:
            return 0, size
        start, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        return int(start), min(size, int(last) + 1) - self.hub.lost_bytes if last else size

    def _describe(self, repo: str) -> None:
        """The repository's files, as `HfApi.model_info(files_metadata=True)` asks for them."""
        if refusal := self._refusal("GET", repo):
            self._refuse(*refusal)
            return
        files = [
            {
                "rfilename": filename,
                "size": len(content),
                "lfs": {"sha256": _sha256(content), "size": len(content), "pointerSize": 134},
            }
            for name, content in self.hub.files.items()
            for owner, _, filename in [name.rpartition("/")]
            if owner == repo
        ]
        body = json.dumps({"id": repo, "siblings": files}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _asked(self, method: str) -> bytes | None:
        """The file's content, or None after a refusal or where else it is has been sent."""
        repo, _, filename = self.path.strip("/").partition("/resolve/")
        revision, _, filename = filename.partition("/")
        content = self.hub.files.get(f"{repo.removeprefix('elsewhere/')}/{filename}")
        if repo.startswith("elsewhere/"):
            token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
            self.hub.requests.append(Request(method, self.path, self.headers["Range"], token))
            return content
        found = content is not None and revision in ("main", self.hub.commit)
        refusal = self._refusal(method, repo) or ((404, "EntryNotFound") if not found else None)
        if refusal:
            self._refuse(*refusal)
        elif self.hub.elsewhere and content is not None:
            self._redirect(content)
            return None
        return None if refusal else content

    def _redirect(self, content: bytes) -> None:
        self.send_response(302)
        self.send_header("Location", self.hub.url.replace("127.0.0.1", "localhost") + "/elsewhere" + self.path)
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.send_header("X-Linked-ETag", f'"{_sha256(content)}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _refusal(self, method: str, repo: str) -> tuple[int, str] | None:
        """The status and the code with which the repository is refused, if it is."""
        hub, token = self.hub, (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        hub.requests.append(Request(method, self.path, self.headers["Range"], token))
        if hub.status != 200:
            return hub.status, ""
        if repo not in {"/".join(name.split("/")[:2]) for name in hub.files}:
            return 404 if token else 401, "RepoNotFound"  # as the real one, which hides private ones
        if hub.gated and token != TOKEN:
            return 403 if token else 401, "GatedRepo"
        return None

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _head(self, status: int, content: bytes, *, length: int, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.send_header("ETag", f'"{self.hub.etag or _sha256(content)}"')
        if self.hub.header:
            self.send_header(*self.hub.header)
        if self.command == "GET" and self.hub.more_bytes:
            self.send_header("Connection", "close")  # the length is what comes
        else:
            self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + length - 1}/{len(content)}")
        self.end_headers()

    def _send(self, content: bytes, start: int) -> None:
        hub, cut, reset, stall = self.hub, self.hub.cut_after, self.hub.reset_after, self.hub.stall_after
        hub.cut_after = hub.reset_after = hub.stall_after = None
        part = content[start : cut or reset or stall]
        hub.sent_bytes += len(part)
        self.wfile.write(part)
        if hub.more_bytes:
            self.wfile.write(bytes(hub.more_bytes))
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if stall:
            hub.closing.wait()
        self.close_connection = bool(cut or reset or hub.more_bytes)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # http.server's own name
        """Silent."""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
