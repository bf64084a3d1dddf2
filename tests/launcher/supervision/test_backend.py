"""When to start again, and when to give up."""

import pytest

from launcher.settings.config import SupervisionSettings
from launcher.supervision.backend import restart_delay

POLICY = SupervisionSettings()


@pytest.mark.parametrize(
    ("failures", "was_ready", "delay"),
    [
        (1, False, 10),
        (2, False, 20),
        (5, False, 160),
        (6, False, 300),
        (12, False, 300),
        (13, False, None),
        (1, True, 1),
        (2, True, 2),
        (9, True, 256),
        (10, True, 300),
    ],
)
def test_a_run_that_was_never_ready_waits_longer(failures: int, was_ready: bool, delay: float | None) -> None:
    assert restart_delay(POLICY, failures, was_ready=was_ready) == delay


def test_without_tries_it_gives_up_at_once() -> None:
    assert restart_delay(SupervisionSettings(max_failures=0), 1, was_ready=False) is None
