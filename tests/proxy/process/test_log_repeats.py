"""The log does not grow with repeated messages."""

import logging

from proxy.process.log_repeats import MAX_REPEATS, WINDOW_S, Repeats


def record(message: str, *args: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("asyncio", level, "file", 1, message, args, None)


def test_a_few_pass_and_the_next_ones_are_counted() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    passed = [repeats.filter(record("accept failed: %d", number)) for number in range(1000)]
    assert passed == [True] * MAX_REPEATS + [False] * (1000 - MAX_REPEATS)
    assert repeats.filter(record("something else"))
    now = WINDOW_S + 1
    later = record("accept failed: %d", 7)
    assert repeats.filter(later)
    assert later.getMessage() == f"accept failed: 7 ({1000 - MAX_REPEATS} similar messages were left out)"
    again = record("accept failed: %d", 8)
    assert repeats.filter(again)
    assert again.getMessage() == "accept failed: 8"


def test_every_request_line_passes() -> None:
    repeats = Repeats()
    assert all(repeats.filter(record("%s", "GET / 200", level=logging.INFO)) for _ in range(100))


def test_messages_that_always_differ_are_not_all_remembered() -> None:
    repeats = Repeats()
    assert all(repeats.filter(record(f"{number} failed")) for number in range(10_000))
    assert len(repeats._kinds) <= 256  # noqa: SLF001 # the test is about what it keeps
