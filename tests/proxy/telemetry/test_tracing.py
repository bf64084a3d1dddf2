"""Traces from a client through a Front to a node, as a real receiver of OTLP gets them; and without a receiver."""

import asyncio
import gc
import socket
import sys
import time
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from proxy.telemetry.requests import RequestRecord, UsageRecord
from proxy.telemetry.spans import ENDPOINTS, is_wanted, tracing
from proxy.telemetry.timing import Timing
from tests.support.nodes.front import front
from tests.support.servers.otlp import PATIENCE_S, Receiver, attributes_of, otlp_receiver
from tests.support.servers.stack import BATCH_TOKENS, FAMILY_FILE, Answer, Stack, proxy

ENGINE_KINDS = ("embedded",)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ROUTE = "POST /v1/embeddings"
PARTS = ("prepare", "wait", "compute", "respond")
SECRET = "a text that no span may have"  # its words
QUEUED_SPANS = 2048 + 512  # the SDK's queue, and the batch that is being sent


async def test_a_trace_is_in_the_response_without_a_receiver_too(served: Stack) -> None:
    given = f"00-{TRACE}-{SPAN}-01"
    assert (await served.post({"input": "x"}, traceparent=given)).headers["traceparent"] == given
    assert (await served.post(b"{", traceparent=given)).headers["traceparent"] == given
    assert "traceparent" not in (await served.post({"input": "x"})).headers


async def test_a_request_is_a_span_with_its_wait_and_its_computation(
    served: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        async with proxy(_config(served), output=log) as url, front({"a": url}) as before:
            client = Stack(url=before.url, models={}, engines={})
            body = {"input": [SECRET, "b"], "task": "code.query"}
            answer = await client.post(body, traceparent=f"00-{TRACE}-{SPAN}-01")
            await _check_trace(receiver, answer.headers["traceparent"])
            for lines in (log, before.log):
                assert (await _once(lines, "POST ")).endswith(f" trace={TRACE}\n")
            await _check_refused(receiver, await Stack(url=url, models={}, engines={}).post({"input": [], "x": SECRET}))
        assert not {one.name for _, one in receiver.spans} - {ROUTE, "GET /v1/models", *PARTS}  # no probes
        assert SECRET.encode() not in receiver.raw


async def _check_trace(receiver: Receiver, answered: str) -> None:
    """The client's span has the Front's as its child, that has the node's, and the node's the parts of its time."""
    spans = await receiver.of_trace(TRACE, {f"trillama-front {ROUTE}", *(f"trillama {one}" for one in (ROUTE, *PARTS))})
    at_front, at_node = spans[f"trillama-front {ROUTE}"], spans[f"trillama {ROUTE}"]
    assert answered == f"00-{TRACE}-{at_front.span_id.hex()}-01"
    assert at_front.parent_span_id.hex() == SPAN
    assert at_node.parent_span_id == at_front.span_id
    facts = attributes_of(at_node)
    assert facts["http.route"] == "/v1/embeddings"
    assert (facts["http.response.status_code"], facts["trillama.inputs"]) == (200, 2)
    assert (facts["trillama.task"], facts["trillama.tokens"]) == (
        "code.query",
        attributes_of(at_front)["trillama.tokens"],
    )
    parts = [spans[f"trillama {name}"] for name in PARTS]
    assert {one.parent_span_id for one in parts} == {at_node.span_id}
    assert attributes_of(parts[1]) == {"trillama.lane": "interactive"}
    assert attributes_of(parts[2]) == {"trillama.backend": "code"}
    bounds = [at_node.start_time_unix_nano, *(one.end_time_unix_nano for one in parts)]
    assert bounds == sorted(bounds)
    assert [one.start_time_unix_nano for one in parts] == bounds[:-1]  # no time is missing
    assert bounds[-1] == at_node.end_time_unix_nano


async def _check_refused(receiver: Receiver, refused: Answer) -> None:
    """A request without a trace begins one; one that is refused has no parts."""
    _, trace_id, span_id, flags = refused.headers["traceparent"].split("-")
    (error,) = (await receiver.of_trace(trace_id, {f"trillama {ROUTE}"})).values()
    assert (error.span_id.hex(), error.parent_span_id, int(flags, 16) & 1) == (span_id, b"", 1)
    assert attributes_of(error)["error.type"] == "VALIDATION_ERROR"


async def test_a_receiver_that_hangs_costs_no_memory_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        variables = {ENDPOINTS[1]: f"http://127.0.0.1:{silent.getsockname()[1]}"}
        monkeypatch.setenv(*next(iter(variables.items())))
        async with tracing("test", variables) as tracer:
            assert tracer
            for _ in range(1000):
                tracer.begin("POST", "/v1/embeddings", None).end(_record(), Timing(arrived=1.0, sent=2.0, done=3.0))
            gc.collect()
            assert sum(isinstance(one, ReadableSpan) for one in gc.get_objects()) <= QUEUED_SPANS
            ending = time.monotonic()
        assert time.monotonic() - ending < PATIENCE_S / 4  # not the SDK's 30 s


def test_the_standard_variables_say_whether_traces_are_sent(caplog: pytest.LogCaptureFixture) -> None:
    to = {ENDPOINTS[1]: "http://127.0.0.1:4318"}
    assert is_wanted(to)
    assert is_wanted({ENDPOINTS[0]: "http://127.0.0.1:4318/v1/traces", "OTEL_TRACES_EXPORTER": "otlp"})
    assert not is_wanted({})
    assert not is_wanted({**to, "OTEL_SDK_DISABLED": "true"})
    assert not is_wanted({**to, "OTEL_TRACES_EXPORTER": "none"})
    assert not caplog.text
    assert not is_wanted({**to, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "grpc is not supported" in caplog.text


async def test_variables_that_the_sdk_refuses_are_logged_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    async with tracing("test", {ENDPOINTS[1]: "http://127.0.0.1:1"}) as tracer:
        assert tracer is None
    assert "no traces are sent: OpenTelemetry refuses its variables" in caplog.text


async def test_without_the_extra_the_log_says_what_to_install_and_which_variable_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "proxy.telemetry.otel", None)
    async with tracing("test", {ENDPOINTS[1]: "http://127.0.0.1:1"}) as tracer:
        assert tracer is None
    assert f"pip install 'trillama[otel]', or remove the variable {ENDPOINTS[1]}" in caplog.text


def _config(served: Stack) -> dict[str, object]:
    """A second proxy before the same engines."""
    backends = {
        name: {"url": one.url, "slots": 16, "batch_tokens": BATCH_TOKENS, "model_file": str(served.models[name])}
        for name, one in served.engines.items()
    }
    return {"family": str(FAMILY_FILE), "max_input_tokens": BATCH_TOKENS, "backends": backends}


async def _once(log: Path, text: str) -> str:
    """The line that has the text, once it is written."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = [one for one in log.read_text(encoding="utf-8").splitlines(keepends=True) if text in one]
            if found:
                return found[0]
            await asyncio.sleep(0.01)


def _record() -> RequestRecord:
    usage = UsageRecord(task="t", inputs=1, tokens=1, wait_s=1.0, compute_s=1.0)
    return RequestRecord(
        id="i", at=0.0, method="POST", route="/r", status=200, seconds=4.0, client="c", error="", usage=usage
    )
