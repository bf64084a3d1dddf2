"""Which `traceparent` is taken up, and how it is passed on: W3C Trace Context, section 3.2."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.telemetry.trace_context import TraceContext, given_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def given(*headers: tuple[str, str]) -> TraceContext | None:
    return given_context(CIMultiDictProxy(CIMultiDict(headers)))


def test_a_trace_is_taken_up_with_its_state() -> None:
    found = given(("Traceparent", f" {GOOD} "), ("tracestate", "a=1"), ("tracestate", "b=2"))
    assert found == TraceContext(TRACE, SPAN, "01", "a=1,b=2")
    assert found.headers == {"traceparent": GOOD, "tracestate": "a=1,b=2"}


def test_a_later_version_is_read_as_the_first_and_passed_on_as_it() -> None:
    found = given(("traceparent", f"cc-{TRACE}-{SPAN}-00-more-of-it"))
    assert found is not None
    assert found.traceparent == f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "00",
        GOOD.upper(),
        f"{GOOD}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}x-{SPAN}-01",
    ],
)
def test_what_is_no_traceparent_is_ignored(wrong: str) -> None:
    assert given(("traceparent", wrong), ("tracestate", "a=1")) is None


def test_two_of_them_are_none() -> None:
    assert given(("traceparent", GOOD), ("traceparent", GOOD)) is None


@pytest.mark.parametrize("state", ["", "x" * 513, "a=ü"])
def test_a_state_that_cannot_be_passed_on_is_left_out(state: str) -> None:
    found = given(("traceparent", GOOD), ("tracestate", state))
    assert found is not None
    assert found.headers == {"traceparent": GOOD}
