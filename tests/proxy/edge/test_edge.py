"""The proxy's edge over real sockets: bodies, deadlines, limits and malformed HTTP. Needs no engine.

A body that was read whole gives 422, as its input is empty.
"""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.requests.raw import Said, connected, dripping, head, post, said
from tests.support.servers.stack import BACKENDS, FAMILY_FILE, proxy

LIMIT = 2**20
NOTHING = b'{"input": []}'
HEALTH = head("Connection: close", method="GET", path="/health")
SETTINGS: Mapping[str, object] = {
    "max_body_bytes": LIMIT,
    "max_total_body_bytes": 4 * LIMIT,
    "head_timeout_s": 0.6,
    "body_timeout_s": 0.6,
    "keepalive_timeout_s": 0.6,
    "max_connections": 40,
    "max_connections_per_peer": 40,
}


def alone(folder: Path, **settings: object) -> Mapping[str, object]:
    """The settings of a proxy without backends."""
    backends = {name: {"url": f"unix://{folder}/{name}.sock"} for name in BACKENDS}
    return {"family": str(FAMILY_FILE), "max_input_tokens": 512, "backends": backends, **SETTINGS, **settings}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A proxy without keys."""
    async with proxy(alone(tmp_path_factory.mktemp("alone")), wait=False) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def locked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A proxy with a key, which pages of one origin may use."""
    settings = alone(tmp_path_factory.mktemp("locked"), api_keys=["right"], cors_origins=["https://app.example"])
    async with proxy(settings, wait=False) as running:
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


def compressed(encoding: str, data: bytes) -> bytes:
    return post(data, f"Content-Encoding: {encoding}")


REFUSED: Mapping[str, tuple[bytes, int, str]] = {
    "gzip cut off": (compressed("gzip", gzip.compress(NOTHING)[:-1]), 400, "INVALID_JSON"),
    "gzip and more": (compressed("gzip", gzip.compress(NOTHING) + b"?"), 400, "INVALID_JSON"),
    "bomb": (compressed("gzip", gzip.compress(bytes(50 * LIMIT))), 413, "BODY_TOO_LARGE"),
    "large": (post(bytes(LIMIT + 1)), 413, "BODY_TOO_LARGE"),
    "brotli": (compressed("br", b"?"), 415, "UNSUPPORTED_ENCODING"),
    "twice": (compressed("gzip, gzip", gzip.compress(gzip.compress(NOTHING))), 415, "UNSUPPORTED_ENCODING"),
    "two headers": (post(b"", "Content-Encoding: identity", "Content-Encoding: gzip"), 415, "UNSUPPORTED_ENCODING"),
    "expects coffee": (post(NOTHING, "Expect: coffee"), 417, "EXPECTATION_FAILED"),
    "expects bytes": (post(NOTHING, "Expect: \xff", "A: \xff"), 417, "EXPECTATION_FAILED"),
    "expects coffee nowhere": (head("Expect: a", "Connection: close", path="/nothing"), 417, "EXPECTATION_FAILED"),
    "long line": (head("A: " + "b" * 9000), 431, "HEADERS_TOO_LARGE"),
    "many lines": (head(*[f"A{number}: b" for number in range(200)]), 431, "HEADERS_TOO_LARGE"),
    "large head": (head(*[f"A{number}: {'b' * 7000}" for number in range(12)])[:-2], 431, "HEADERS_TOO_LARGE"),
    "long url": (head(path="/" + "a" * 9000), 431, "HEADERS_TOO_LARGE"),
    "no host": (head(host=None), 400, "INVALID_REQUEST"),
    "length below 0": (head("Content-Length: -1"), 400, "INVALID_REQUEST"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "INVALID_REQUEST"),
    "trace": (head("Connection: close", method="TRACE"), 405, "METHOD_NOT_ALLOWED"),
    "connect": (head("Connection: close", method="CONNECT", path="127.0.0.1:80"), 404, "NOT_FOUND"),
    "long path": (head("Connection: close", method="GET", path="/" + "a" * 7000), 404, "NOT_FOUND"),
    "odd host": (head("Connection: close", method="GET", path="/metrics", host="a$(b)"), 400, "INVALID_REQUEST"),
    "rebound": (head("Connection: close", method="GET", path="/metrics", host="evil.example"), 403, "HOST_NOT_ALLOWED"),
    "absolute": (head("Connection: close", method="GET", path="http://evil.example/metrics"), 403, "HOST_NOT_ALLOWED"),
    "page": (post(NOTHING, "Origin: http://evil.example", "Content-Type: text/plain"), 403, "ORIGIN_NOT_ALLOWED"),
    "sandbox": (post(NOTHING, "Origin: null"), 403, "ORIGIN_NOT_ALLOWED"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_request_gets_a_short_json_error(url: str, case: str) -> None:
    request, status, code = REFUSED[case]
    answer = await said(url, request)
    assert (answer.statuses, answer.code, answer.closes) == ([status], code, True)
    assert len(answer.data) < 2000


READ: Mapping[str, bytes] = {
    "plain": post(NOTHING),
    "as curl -d": post(NOTHING, "Content-Type: application/x-www-form-urlencoded"),
    "identity": compressed("identity", NOTHING),
    "gzip": compressed("gzip", gzip.compress(NOTHING)),
    "gzip in members": compressed("X-GZIP", gzip.compress(NOTHING[:5]) + gzip.compress(NOTHING[5:])),
    "deflate": compressed("deflate", zlib.compress(NOTHING)),
    "deflate, bare": compressed("deflate", zlib.compress(NOTHING, wbits=-15)),
    "chunked": head("Connection: close", "Transfer-Encoding: chunked") + b"d\r\n" + NOTHING + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("case", READ)
async def test_bodies_are_read(url: str, case: str) -> None:
    assert (await said(url, READ[case])).statuses == [422]


async def test_100_continue_is_sent_only_after_admission(url: str, locked: str) -> None:
    expecting = head("Expect: 100-continue", "Connection: close", f"Content-Length: {len(NOTHING)}")
    assert (await said(url, expecting, NOTHING)).statuses == [100, 422]
    assert (await said(locked, expecting)).statuses == [401]


async def test_a_client_that_leaves_before_100_continue_is_no_error_of_ours(tmp_path: Path) -> None:
    async with proxy(alone(tmp_path), wait=False, output=tmp_path / "log") as url:
        for _ in range(20):
            async with connected(url) as (reader, writer):
                writer.write(head("Expect: 100-continue", "Content-Length: 9"))
                writer.write_eof()
                await reader.read()
        metrics = await said(url, head("Connection: close", method="GET", path="/metrics"))
    assert b'status="499"' in metrics.data
    assert b'status="500"' not in metrics.data
    assert "ERROR" not in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize("framing", [f"Content-Length: {100 * LIMIT}", "Transfer-Encoding: chunked"])
async def test_the_body_of_a_refused_request_is_not_read(locked: str, framing: str) -> None:
    """The client gets its error and is disconnected with most of the body unsent."""
    async with asyncio.timeout(10), connected(locked) as (reader, writer):
        writer.write(head(framing) + b"fffffff\r\n")
        answer = await reader.read(2**16)
        sent = 0
        try:
            while True:
                writer.write(bytes(2**16))
                await writer.drain()
                sent += 2**16
        except ConnectionError:
            pass
    assert (Said(answer).statuses, Said(answer).closes) == ([401], True)
    assert sent < 32 * LIMIT  # what the kernel's buffers hold


async def test_the_body_of_a_get_is_left_unread(url: str) -> None:
    answer = await said(url, head(f"Content-Length: {100 * LIMIT}", method="GET", path="/health") + bytes(1000))
    assert (answer.statuses, answer.closes) == ([200], True)


SILENT: Mapping[str, tuple[bytes, list[int]]] = {
    "from the start": (b"", []),
    "in a head": (b"GET /health HTT", [408]),
    "in a body": (head(f"Content-Length: {LIMIT}") + b"{", [408]),
    "in a chunk": (head("Transfer-Encoding: chunked") + b"fffff\r\n{", [408]),
    "after an answer": (head(method="GET", path="/health"), [200]),
    "in a second head": (head(method="GET", path="/health") + b"GET /he", [200]),
}


async def test_silent_connections_are_closed(url: str) -> None:
    answers = await asyncio.gather(*(said(url, start) for start, _ in SILENT.values()))
    assert [answer.statuses for answer in answers] == [statuses for _, statuses in SILENT.values()]


@pytest.mark.parametrize("start", [b"GET /health HTTP/1.1\r\nA: ", head("Content-Length: 999")], ids=["head", "body"])
async def test_a_trickle_of_bytes_does_not_extend_the_time(url: str, start: bytes) -> None:
    async with asyncio.timeout(10), connected(url) as (reader, writer):
        answer = asyncio.create_task(reader.read(2**16))
        for drop in dripping(start):
            writer.write(drop)
            if (await asyncio.wait([answer], timeout=0.1))[0]:
                break
        assert Said(answer.result()).statuses == [408]


async def test_a_wrongly_framed_body_fails_at_once(url: str) -> None:
    chunked = head("Transfer-Encoding: chunked", "Expect: 100-continue")
    assert (await said(url, chunked, b"zz\r\n")).statuses == [100, 400]


async def test_idle_connections_do_not_lock_out_others(url: str) -> None:
    async with AsyncExitStack() as exits, asyncio.timeout(20):
        for start in (b"", b"GET /", head("Content-Length: 9") + b"{") * 60:
            _, writer = await exits.enter_async_context(connected(url))
            writer.write(start)
        while not await served(url):  # at first all are new, and none is closed yet
            await asyncio.sleep(0.05)
        assert (await said(url, HEALTH)).statuses == [200]


async def served(url: str) -> bool:
    """Whether a request is read, and not disconnected or refused."""
    try:
        return (await said(url, post(NOTHING))).statuses == [422]
    except ConnectionError:
        return False


async def test_stalled_bodies_make_room_for_others(url: str) -> None:
    async with AsyncExitStack() as exits, asyncio.timeout(20):
        answers = []
        for _ in range(5):
            reader, writer = await exits.enter_async_context(connected(url))
            writer.write(head(f"Content-Length: {LIMIT}") + b"{")
            answers.append(asyncio.create_task(reader.read(2**16)))
        assert (await said(url, post(NOTHING))).statuses == [422]
        ends = [Said(end) for end in await asyncio.gather(*answers)]
    assert sorted(status for end in ends for status in end.statuses) == [408, 408, 408, 429, 429]
    refused = [end for end in ends if end.statuses == [429]]
    assert all(b"\r\nRetry-After: " in end.data and end.code == "SERVER_BUSY" for end in refused)


async def test_a_configured_page_may_read_responses_and_send_preflights(locked: str) -> None:
    page = "Origin: https://app.example"
    asking = head(page, "Access-Control-Request-Method: POST", "Connection: close", method="OPTIONS")
    preflight = await said(locked, asking)
    assert preflight.statuses == [204]
    assert b"Access-Control-Allow-Headers: *, Authorization\r\n" in preflight.data
    for key, status in (("right", 422), ("wrong", 401)):
        answer = await said(locked, post(NOTHING, page, f"Authorization: Bearer {key}"))
        assert answer.statuses == [status]
        assert b"Access-Control-Allow-Origin: https://app.example\r\n" in answer.data


async def test_another_page_with_the_key_is_served_but_cannot_read(locked: str) -> None:
    page = "Origin: http://evil.example"
    answer = await said(locked, post(NOTHING, page, "Authorization: Bearer right"))
    assert answer.statuses == [422]
    assert b"Access-Control-Allow-Origin" not in answer.data
    asking = head(page, "Access-Control-Request-Method: POST", "Connection: close", method="OPTIONS")
    assert (await said(locked, asking)).statuses == [403]
