"""A start is stuck if it neither loads nor computes, or only computes for too long."""

import pytest

from launcher.supervision.start_progress import MAX_EXTENSIONS, StartProgress


@pytest.mark.parametrize(
    ("loads", "computes", "seconds"),
    [
        (0.0, 0.0, 10),
        (0.0, 0.05, 10),
        (0.0, 1.0, 10 * MAX_EXTENSIONS),
        (0.0, 0.2, 10 * MAX_EXTENSIONS),
        (0.001, 0.0, 1010),
    ],
    ids=["nothing", "as little as polling", "waits for a GPU that hangs", "slow machine", "until it is loaded"],
)
def test_how_long_a_start_may_take_that_does_not_become_ready(loads: float, computes: float, seconds: int) -> None:
    progress, now_s = StartProgress(stall_s=10, since_s=0), 0
    while True:
        now_s += 1
        progress.advance(now_s, min(1.0, loads * now_s), computes * now_s)
        if progress.stuck(now_s, computes * now_s):
            break
        assert now_s < 10_000
    assert seconds < now_s <= seconds + MAX_EXTENSIONS


def test_what_was_loaded_after_a_long_time_starts_it_again() -> None:
    progress = StartProgress(stall_s=10, since_s=0)
    for stall in range(1, MAX_EXTENSIONS):
        assert not progress.stuck(11.0 * stall, 11.0 * stall)
    assert progress.advance(50, 0.5, 50)
    assert not progress.advance(51, 0.5, 51)
    assert not progress.stuck(60, 50)
    assert progress.stuck(61, 50)
