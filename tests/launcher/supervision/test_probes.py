"""The watch on a process: how long it may be silent."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from launcher.settings.config import SupervisionSettings
from launcher.supervision.probes import watch

POLICY = SupervisionSettings(probe_interval_s=0.01, max_misses=3, stall_s=0.3)


@pytest_asyncio.fixture
async def silent() -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that lives and answers nothing."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    yield process
    process.kill()
    await process.wait()


@pytest.mark.parametrize(("up", "probes"), [(True, 3), (False, 30)])
async def test_only_what_never_answered_may_take_as_long_as_a_start(
    silent: asyncio.subprocess.Process, up: bool, probes: int
) -> None:
    asked = 0

    async def probe() -> bool:
        nonlocal asked
        asked += 1
        return False

    assert await watch(silent, probe, lambda: POLICY, up=up) is None
    assert asked == probes
