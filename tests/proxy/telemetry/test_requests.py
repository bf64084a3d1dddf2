"""What the console keeps of requests is bounded, and its numbers are those that were seen."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.requests import KEPT_REQUESTS, MAX_CLIENTS, RequestLog, RequestRecord, UsageRecord


def record(
    number: int = 0, *, client: str = "a", status: int = 200, seconds: float = 0.1, tokens: int = 0
) -> RequestRecord:
    usage = UsageRecord(task="t", inputs=1, tokens=tokens, wait_s=0.0, compute_s=0.0) if tokens else None
    return RequestRecord(
        id=str(number),
        at=float(number),
        method="POST",
        route="/v1/embeddings",
        status=status,
        seconds=seconds,
        client=client,
        error="",
        usage=usage,
    )


@given(added=st.integers(0, 3 * KEPT_REQUESTS), seen=st.integers(0, 3 * KEPT_REQUESTS))
def test_a_watcher_gets_each_request_once_as_far_as_it_is_kept(added: int, seen: int) -> None:
    log, seen = RequestLog(), min(seen, added)
    for number in range(added):
        log.add(record(number))
    expected = range(max(seen, added - KEPT_REQUESTS), added)
    assert [one.id for one in log.since(seen)] == [str(number) for number in expected]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=1200))
def test_percentiles_are_times_that_were_seen(times: list[float]) -> None:
    log = RequestLog()
    for seconds in times:
        log.add(record(seconds=seconds))
    (route,) = log.routes()
    latest = sorted(times[-1000:])
    for share, value in [(0.5, route.p50_s), (0.95, route.p95_s), (0.99, route.p99_s)]:
        assert value in latest
        assert sum(one <= value for one in latest) >= share * len(latest) > sum(one < value for one in latest) - 1e-6


def test_who_sends_most_is_first_and_the_list_is_bounded() -> None:
    log = RequestLog()
    log.add(record(client="much", tokens=1000))
    for number in range(2 * MAX_CLIENTS):
        log.add(record(client=f"once {number}", tokens=1, status=429))
        log.add(record(client="much", tokens=1000))
    clients = log.clients()
    assert len(clients) == MAX_CLIENTS
    name, totals = next(iter(clients.items()))
    assert (name, totals.requests, totals.tokens, totals.failed) == ("much", 401, 401_000, 0)
    assert clients["once 399"].failed == 1
