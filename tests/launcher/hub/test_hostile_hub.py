"""A hub is a stranger: whatever it answers, nothing is written outside the cache, believed unseen, or shown raw."""

import gzip
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from huggingface_hub import constants

from launcher.errors import HubUnreachable, ModelError
from launcher.hub.client import find
from launcher.hub.download import fetch
from launcher.hub.listing import offers
from launcher.settings.family import HubFile
from proxy.contract.log_lines import printable
from tests.support.sources.hub import TOKEN
from tests.support.sources.place import MIB, WEIGHTS, Place

OUTSIDE = "/var/tmp/trillama-outside"  # noqa: S108 # that it is not made is the point
PULL = ("pull", "--backend", "code")
FILE = WEIGHTS["code"]["file"].format(quantization="Q4_K_M")


def outside(place: Place) -> set[Path]:
    """Everything near the cache that is no part of it."""
    cache = place.home / "hub"
    return {
        path
        for path in place.config.parent.rglob("*")
        if path.is_file() and not path.is_symlink() and cache not in path.parents and path.suffix != ".toml"
    }


@pytest.mark.parametrize(
    "etag", ["../../../outside", "..", OUTSIDE, "a/b", "x" * 300, "abc", "A" * 64, "%2e%2e%2f", "a\\b"]
)
def test_an_etag_that_is_no_digest_is_no_path_and_is_reported(place: Place, small: dict[str, bytes], etag: str) -> None:
    place.hub.etag = etag
    before = outside(place)
    done = place.models(*PULL)
    assert done.code == 0, done.err
    assert f"the hub gives no checksum of {FILE}" in done.err
    assert "cannot be verified" in done.err
    assert outside(place) == before
    assert not Path(OUTSIDE).exists()
    assert place.blob("code", "Q4_K_M").name == sha256(small["code"]).hexdigest()  # verified from now on
    assert place.models("verify").out.startswith("ok")


def test_git_s_own_checksum_of_a_small_file_is_verified(place: Place, small: dict[str, bytes]) -> None:
    content = small["code"]
    place.hub.etag = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    right = place.models(*PULL)
    place.hub.etag = "0" * 40
    place.put("code", "Q4_K_M", content)
    wrong = place.models("pull", "Q8_0", "--backend", "code")
    assert (right.code, wrong.code) == (0, 66)
    assert "the download is damaged" in wrong.err


@pytest.mark.parametrize("commit", ["../../../../outside", "/outside", "main", "", "C0FFEE" * 6 + "C0DE", "a" * 41])
def test_a_commit_that_is_none_is_refused(place: Place, commit: str) -> None:
    place.hub.commit = commit
    before = outside(place)
    done = place.models(*PULL)
    assert done.code == 75
    assert "the answer is not a hub's (no commit" in done.err
    assert outside(place) == before
    assert place.hub.downloads() == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//x", "", ".", "a\\..\\x", "a\0b", "a\nb"])
def test_a_name_that_leaves_the_repository_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="is no file of a repository"):
        find("owner/models", name)


def test_an_endless_body_ends_at_its_announced_length(place: Place, small: dict[str, bytes]) -> None:
    place.hub.more_bytes = 30 * MIB
    done = place.models(*PULL)
    assert done.code == 75
    assert f"sends more than the {len(small['code'])} bytes that it announced" in done.err
    assert sum(half.stat().st_size for half in place.halves()) <= len(small["code"])


@pytest.mark.parametrize("claimed", [1, 10**6])
def test_a_wrong_size_is_reported(place: Place, claimed: int) -> None:
    place.hub.claimed_bytes = claimed
    done = place.models(*PULL)
    assert done.code == 75
    assert "announced" in done.err


def test_a_range_from_another_place_is_found_and_fetched_again(place: Place, small: dict[str, bytes]) -> None:
    content = small["code"]
    half = place.home / "hub" / f"models--{WEIGHTS['code']['repo'].replace('/', '--')}" / "blobs"
    half.mkdir(parents=True)
    (half / f"{sha256(content).hexdigest()}.trillama.incomplete").write_bytes(content[:100])
    place.hub.shifted = True
    done = place.models(*PULL)
    assert done.code == 0, done.err
    assert place.blob("code", "Q4_K_M").read_bytes() == content
    assert [one.range for one in place.hub.downloads()] == ["bytes=100-", None]


def test_the_token_stays_with_the_hub_when_it_redirects(place: Place) -> None:
    place.hub.elsewhere = True
    done = place.models(*PULL, HF_TOKEN=TOKEN)
    assert done.code == 0, done.err
    assert {one.token for one in place.hub.requests if one.path.startswith("/elsewhere")} == {None}
    assert {one.token for one in place.hub.requests if not one.path.startswith("/elsewhere")} == {TOKEN}


def test_what_a_hub_writes_to_its_users_is_text(place: Place) -> None:
    place.hub.header = ("X-HF-Warning", "topic; \x1b[2J\x9bred")
    done = place.models(*PULL)
    assert done.code == 0, done.err
    assert r"\x1b[2J" in done.err
    assert not {"\x1b", "\x9b"} & set(done.err)


class _Odd(BaseHTTPRequestHandler):
    """Answers each request with the next of `bodies`, whatever was asked."""

    protocol_version = "HTTP/1.1"
    raw = b""

    def handle(self) -> None:
        with suppress(OSError):
            self.connection.settimeout(5)
            while b"\r\n\r\n" not in self.connection.recv(65536):
                pass
            self.connection.sendall(type(self).raw)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))


@pytest.fixture
def odd() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Odd)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def answer(body: bytes, *head: str, status: str = "200 OK") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *head)
    return "\r\n".join((*lines, "", "")).encode() + body


ODD_ANSWERS = {
    "a captive portal": answer(b"<html>log in</html>", "Content-Type: text/html"),
    "json of another kind": answer(b'["x"]'),
    "no object": answer(b"null"),
    "siblings that are none": answer(b'{"id": "a/b", "siblings": 3}'),
    "files without names": answer(b'{"id": "a/b", "siblings": [{"size": 1}]}'),
    "a size in words": answer(b'{"id": "a/b", "siblings": [{"rfilename": "%s", "size": "big"}]}' % FILE.encode()),
    "a size below nothing": answer(b'{"id": "a/b", "siblings": [{"rfilename": "%s", "size": -5}]}' % FILE.encode()),
    "no UTF-8": answer(b'{"id": "\xff\xfe"}'),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another length": b"HTTP/1.1 200 OK\r\nContent-Length: none\r\n\r\n{}",
    "nothing": b"",
    "a teapot": answer(b"", status="418 I'm a teapot"),
    "a redirect to a file": answer(b"", "Location: file:///etc/passwd", status="302 Found"),
    "a loop": answer(b"", "Location: /again", status="302 Found"),
}


@pytest.mark.parametrize("raw", ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
def test_an_answer_that_is_no_hub_s_is_a_sentence(
    odd: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, raw: bytes
) -> None:
    _Odd.raw = raw
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{odd.server_port}")  # read once, at import
    with pytest.raises(ModelError) as refused:
        offers("code", HubFile(**WEIGHTS["code"]))
    assert refused.value.exit_code in (66, 75)
    assert len(str(refused.value)) < 600
    assert printable(str(refused.value)) == str(refused.value)


@pytest.mark.parametrize(
    ("status", "head", "said"),
    [
        ("200 OK", "X-A: b", "answers with more than 33554432 bytes"),
        ("500 Oops", "X-A: b", "answers with more than 33554432 bytes"),
        ("302 Found", "Location: /again", "answers with more than 33554432 bytes"),
        ("200 OK", "Content-Encoding: gzip", "sends an answer in gzip, which was not asked for"),
    ],
)
def test_an_answer_is_bounded(
    odd: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, status: str, head: str, said: str
) -> None:
    _Odd.raw = answer(bytes(33 * MIB), head, status=status)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{odd.server_port}")
    with pytest.raises(HubUnreachable, match=said):
        offers("code", HubFile(**WEIGHTS["code"]))


def test_a_file_s_content_is_never_inflated(
    odd: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    template = f"http://127.0.0.1:{odd.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    content = gzip.compress(bytes(64 * MIB))
    described = ("X-Repo-Commit: " + "a" * 40, f'ETag: "{sha256(content).hexdigest()}"')
    _Odd.raw = answer(content, *described, "Content-Encoding: gzip")
    tracemalloc.start()
    try:
        with pytest.raises(HubUnreachable, match="sends an answer in gzip, which was not asked for"):
            fetch("a/b", "c.gguf", report=lambda *_: None, stop=Event())
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    _Odd.raw = answer(content, *described)
    assert fetch("a/b", "c.gguf", report=lambda *_: None, stop=Event()).read_bytes() == content
