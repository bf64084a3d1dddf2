"""Requests through a Front to nodes on real sockets: nothing is lost, swapped, or computed in another vector space."""

import numpy as np
import orjson
import pytest

from proxy.errors import BackendError, DeadlineExceeded, InputTooLong, Overloaded, ProxyError
from proxy.faults import PoisonedInput
from proxy.telemetry.trace_context import TraceContext
from proxy.types import EmbedRequest, EmbedResult, Matrix, client_of
from tests.support.nodes.scripted_node import (
    FAMILY,
    Fault,
    ScriptedNode,
    body,
    breaks,
    fronted,
    hangs,
    scripted_nodes,
    status,
)
from tests.support.nodes.stub_node import tokens_of, vector_of

TEXTS = [f"text number {at}" for at in range(100)]


def expected(texts: list[str], prefix: str = "Query: ") -> Matrix:
    return np.stack([vector_of(text, prefix, FAMILY.dimensions) for text in texts])


def check(result: EmbedResult, texts: list[str]) -> None:
    assert np.array_equal(result.vectors, expected(texts))
    assert result.tokens == sum(map(tokens_of, texts))


def sent(*nodes: ScriptedNode) -> int:
    return sum(len(node.pieces) for node in nodes)


async def test_rows_of_all_pieces_are_in_order_and_tokens_are_counted_once() -> None:
    async with scripted_nodes("a", "b", "c") as nodes, fronted(nodes) as service:
        check(await service.embed(EmbedRequest(inputs=TEXTS)), TEXTS)
        assert sent(*nodes.values()) == 4
        assert sum(node.texts for node in nodes.values()) == len(TEXTS)


FAULTS = {
    **{f"status {code}": status(code) for code in (401, 404, 500, 502, 503, 504)},
    "a redirect": status(302, Location="http://127.0.0.1:9/"),
    "breaks": breaks,
    "HTML": body(b"<html>"),
    "another object": body(b"{}"),
    "no rows": body(b'{"model": "m", "usage": {"total_tokens": 1}, "data": []}'),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_node_that_fails_is_replaced_by_another(fault: Fault) -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        nodes["a"].faults = [fault]
        check(await service.embed(EmbedRequest(inputs=TEXTS)), TEXTS)
        assert sum(node.texts for node in nodes.values()) > len(TEXTS)


@pytest.mark.parametrize("broken", ["a row too few", "short vectors", "not a number"])
async def test_vectors_that_are_wrong_are_computed_elsewhere(broken: str) -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        texts, asked = ["hello"], nodes["a"].stub
        rows: dict[int, Matrix] = {0: expected(texts)[0]}
        if broken == "a row too few":
            rows = {}
        elif broken == "short vectors":
            rows = {0: rows[0][:3]}
        else:
            rows = {0: np.full(FAMILY.dimensions, np.nan, dtype=np.float32)}
        answer = asked._answer(rows, {}, 1, "base64")  # noqa: SLF001 # as the stub writes it
        nodes["a"].always = body(orjson.dumps(answer))
        for _ in range(4):
            check(await service.embed(EmbedRequest(inputs=TEXTS[:64])), TEXTS[:64])


async def test_at_most_three_nodes_compute_a_piece() -> None:
    async with scripted_nodes(*"abcde") as nodes, fronted(nodes) as service:
        for node in nodes.values():
            node.always = status(502)
        with pytest.raises(BackendError, match="answered with status 502"):
            await service.embed(EmbedRequest(inputs=["hello"]))
        assert sent(*nodes.values()) == 3


async def test_the_callers_fault_is_not_tried_elsewhere() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        with pytest.raises(InputTooLong, match="input 0 has 8196 tokens"):
            await service.embed(EmbedRequest(inputs=["LONG"]))
        assert sent(*nodes.values()) == 1


async def test_a_full_node_is_passed_over_and_all_full_is_a_429_with_the_earliest_time() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        nodes["a"].always = status(429, "QUEUE_FULL", Retry_After="7", X_Queue_Tokens="70")
        for _ in range(4):
            check(await service.embed(EmbedRequest(inputs=TEXTS)), TEXTS)
        nodes["b"].always = status(429, "QUEUE_FULL", Retry_After="3", X_Queue_Tokens="30")
        with pytest.raises(Overloaded) as raised:
            await service.embed(EmbedRequest(inputs=["hello"]))
        assert (raised.value.retry_after_s, raised.value.queue_tokens) == (3, 100)


async def test_a_poisoned_text_is_named_by_its_index_in_the_whole_request() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        texts = [*TEXTS[:70], "POISON", *TEXTS[70:]]
        with pytest.raises(PoisonedInput) as raised:
            await service.embed(EmbedRequest(inputs=texts))
        assert raised.value.index == 70


async def test_all_texts_that_are_too_long_are_named_at_once() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        texts = ["LONG", *TEXTS[:70], "LONG more"]
        with pytest.raises(InputTooLong, match=r"^input 0 has 8196 tokens, input 71 has 8201 tokens; at most"):
            await service.embed(EmbedRequest(inputs=texts))


async def test_a_partial_request_has_its_errors_by_index() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        texts = [*TEXTS[:40], "LONG", *TEXTS[40:], *["POISON"] * 70]
        result = await service.embed(EmbedRequest(inputs=texts, partial=True))
        assert set(result.failed) == {40, *range(101, 171)}
        assert result.failed[40].message.startswith("input 40 has 8196 tokens; at most")
        assert all(result.failed[at].message.startswith(f"input.{at}: ") for at in range(101, 171))
        assert result.failed[40].code == InputTooLong.code
        check(result, TEXTS)


async def test_a_partial_request_of_which_nothing_is_left_fails_with_its_first_error() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        with pytest.raises(InputTooLong, match=r"^input 0 has"):
            await service.embed(EmbedRequest(inputs=["LONG", *["POISON"] * 69], partial=True))


async def test_what_the_client_asked_for_is_sent_with_nothing_left_to_the_nodes() -> None:
    async with scripted_nodes("a") as nodes, fronted(nodes) as service:
        request = EmbedRequest(
            inputs=["hello", [1, 2, 3]],
            model="jina-embeddings-v4-query",
            dimensions=8,
            normalized=False,
            truncate=True,
            request_id="mine",
            timeout_s=30,
            trace=TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01", "vendor=1"),
        )
        result = await service.embed(request)
        assert result.vectors.shape == (2, 8)
        assert nodes["a"].pieces == [
            {
                "input": ["hello", [1, 2, 3]],
                "task": "retrieval.query",
                "dimensions": 8,
                "normalized": False,
                "truncate": True,
                "late_chunking": False,
                "return_multivector": False,
                "on_error": "fail",
                "embedding_type": "base64",
            }
        ]
        headers = nodes["a"].headers[0]
        assert headers["X-Request-ID"] == "mine-p0"
        assert headers["traceparent"] == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        assert headers["tracestate"] == "vendor=1"
        assert 0 < float(headers["X-Request-Timeout"]) <= 30


@pytest.mark.parametrize(("own", "given"), [(None, "second"), ("secret", "secret")])
async def test_nodes_get_the_clients_key_or_the_fronts(own: str | None, given: str) -> None:
    settings = {} if own is None else {"node_api_key": own}
    async with scripted_nodes("a") as nodes, fronted(nodes, api_keys=["first", "second"], **settings) as service:
        await service.embed(EmbedRequest(inputs=["hello"], client=client_of("second")))
        assert nodes["a"].headers[0]["Authorization"] == f"Bearer {given}"


async def test_a_deadline_is_the_callers_own() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        for node in nodes.values():
            node.always = hangs
        with pytest.raises(DeadlineExceeded, match=r"not done within 0\.2 s"):
            await service.embed(EmbedRequest(inputs=["hello"], timeout_s=0.2))
        assert [node.load().in_flight for node in service.nodes.serving("retrieval").values()] == [0, 0]


async def test_pieces_of_a_large_request_are_in_no_hurry() -> None:
    async with scripted_nodes("a") as nodes, fronted(nodes) as service:
        await service.embed(EmbedRequest(inputs=["hello"]))
        await service.embed(EmbedRequest(inputs=TEXTS))
        assert [head.get("X-Trillama-Lane") for head in nodes["a"].headers] == [None, *["bulk"] * 4]


async def test_a_short_text_returns_to_its_node() -> None:
    async with scripted_nodes(*"abcd") as nodes, fronted(nodes) as service:
        for _ in range(8):
            await service.embed(EmbedRequest(inputs=["hello"]))
        assert sorted(len(node.pieces) for node in nodes.values()) == [0, 0, 0, 8]


async def test_what_no_node_would_take_is_refused_by_the_front() -> None:
    async with scripted_nodes("a") as nodes, fronted(nodes) as service:
        with pytest.raises(ProxyError, match="must have at least one text"):
            await service.embed(EmbedRequest(inputs=[]))
        with pytest.raises(ProxyError, match="must be from 1 to 16"):
            await service.embed(EmbedRequest(inputs=["hello"], dimensions=17))
        with pytest.raises(ProxyError, match="takes no instruction"):
            await service.embed(EmbedRequest(inputs=["hello"], instruction="find it"))
        assert not nodes["a"].pieces
