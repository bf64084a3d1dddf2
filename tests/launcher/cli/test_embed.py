"""`trillama embed` with a running server: which one, with which key, which texts, and what is written where."""

import io
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from launcher.errors import ArgumentError
from launcher.terminal.given_images import given_images
from launcher.terminal.given_texts import given_texts
from tests.support.servers.trillama import Run, clean, command, commands


class Server(ThreadingHTTPServer):
    """Answers as ours does, with vectors of two numbers, and records its requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None, dict[str, object]]] = []
        self.answer: tuple[int, bytes] | None = None  # instead of vectors

    @property
    def at(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._reply(200, json.dumps({"backends": {"code": "ready"}}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        rows = [{"index": number, "embedding": [number, 1]} for number, _ in enumerate(body["input"])]
        self._reply(*(self.server.answer or (200, json.dumps({"data": rows}).encode())))

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # http.server's own name
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with commands({"TRILLAMA_API_KEY": "of-the-environment"}) as run:
        yield run


def test_the_address_may_end_with_v1_and_the_key_may_be_given(server: Server, run: Run) -> None:
    plain, copied = run("embed", "a", "--url", server.at), run("embed", "a", "--url", f"http://{server.at}/v1/")
    given = run("embed", "a", "--url", server.at, "--api-key", "given")
    assert (plain.code, copied.code, given.code) == (0, 0, 0), plain.err
    assert json.loads(plain.out)["data"] == [{"index": 0, "embedding": [0, 1]}]
    assert [asked[:2] for asked in server.asked] == [
        ("/v1/embeddings", "Bearer of-the-environment"),
        ("/v1/embeddings", "Bearer of-the-environment"),
        ("/v1/embeddings", "Bearer given"),
    ]


def test_texts_come_from_arguments_standard_input_and_files(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufefffirst line\r\nsecond: Gr\u00f6\u00dfe\r\n\r\n".encode())
    argv = command("embed", "one", "-", "--file", str(file), "--url", server.at)
    done = subprocess.run(argv, input=b"typed\nmore\n", capture_output=True, env=clean({}), timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (_, _, body) = server.asked[0]
    assert body["input"] == ["one", "typed", "more", "first line", "second: Gr\u00f6\u00dfe"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no text"), (b"\n\n", "no text"), (b"a\n\nb\n", "line 2 is empty"), (b"\xff", "not UTF-8")],
)
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ArgumentError, match=words):
        given_texts([], [tmp_path / "f"], None)
    with pytest.raises(ArgumentError, match=words):
        given_texts(["-"], [], io.TextIOWrapper(io.BytesIO(content)))


def test_images_are_read_here_and_urls_are_the_servers_to_fetch(server: Server, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    done = run("embed", "a text", "--image", str(tmp_path / "a.png"), "--image", "https://x/y.png", "--url", server.at)
    assert done.code == 0, done.err
    assert server.asked[0][2]["input"] == ["a text", {"image": "iVBORw=="}, {"image": "https://x/y.png"}]


def test_a_pdf_is_sent_alone(server: Server, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(b"%PDF-1.7")
    assert run("embed", "--image", str(file), "--url", server.at).code == 0
    assert server.asked[0][2]["input"] == [{"pdf": "JVBERi0xLjc="}]
    for more in (["--image", "https://x/y.png"], ["a text"]):
        done = run("embed", "--image", str(file), *more, "--url", server.at)
        assert done.code == 2
        assert "a.pdf: is a PDF" in done.err


@pytest.mark.parametrize(
    ("name", "words"), [("none.png", "No such file"), (".", "Is a directory"), ("empty.png", "is empty")]
)
def test_an_image_that_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ArgumentError, match=f"--image .*: .*{words}"):
        given_images([str(tmp_path / name)])


def test_the_servers_words_about_an_image_name_its_file(server: Server, run: Run, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    server.answer = 422, b'{"detail": "input.1: is not an image; input.0: is bad"}'
    done = run("embed", "a text", "--image", str(tmp_path / "b.png"), "--url", server.at)
    assert done.code == 2
    assert "b.png: is not an image; input.0: is bad" in done.err


@pytest.mark.parametrize(("status", "code"), [(400, 2), (401, 2), (422, 2), (413, 2), (429, 75), (503, 75), (500, 1)])
def test_a_rejection_is_reported_with_the_exit_code_of_its_cause(
    server: Server, run: Run, status: int, code: int
) -> None:
    server.answer = status, json.dumps({"detail": "words\x1b[2J of the server"}).encode()
    done = run("embed", "a", "--url", server.at)
    assert done.code == code
    assert r"words\x1b[2J of the server" in done.err


def test_vectors_as_numpy_never_go_to_a_terminal(server: Server, run: Run) -> None:
    argv = command("embed", "a", "--format", "npy", "--url", server.at)
    ours, theirs = pty.openpty()
    done = subprocess.run(argv, stdout=theirs, stderr=subprocess.PIPE, env=clean({}), timeout=60, check=False)
    os.close(theirs)
    with suppress(OSError):  # EIO: nobody wrote anything
        assert os.read(ours, 1) == b""
    os.close(ours)
    assert done.returncode == 2
    assert b"standard output is a terminal: add > vectors.npy" in done.stderr
    assert server.asked == []

    argv = command("embed", "a", "b", "--format", "npy", "--url", server.at)
    piped = subprocess.run(argv, capture_output=True, env=clean({}), timeout=60, check=False)
    assert np.load(io.BytesIO(piped.stdout)).tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize("body", [b"", b"null", b"<html>", b'{"data": 3}', b'{"data": [{"embedding": "x"}]}'])
def test_an_answer_without_vectors_is_a_sentence(server: Server, run: Run, body: bytes) -> None:
    server.answer = 200, body
    done = run("embed", "a", "--format", "npy", "--url", server.at)
    assert done.code == 1
    assert "what answered is not a trillama" in done.err
