"""A program that is kept running: started again whenever it ends, or no longer answers."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from launcher.processes.child import ending, running
from launcher.settings.config import SupervisionSettings
from launcher.supervision import probes

log = logging.getLogger(__name__)

STEADY_S = 60.0  # a run of that length counts as good
LONGEST_DELAY_S = 30.0


async def _alive() -> bool:
    return True


@dataclass(slots=True, kw_only=True)
class KeptProgram:
    """`command` returns the program's command line for each start. `probe` says whether it answers.

    `started` is called after each start. `final` are exit codes after which another start would not help.
    """

    name: str
    command: Callable[[], Sequence[str]]
    env: Mapping[str, str]
    pass_fds: Sequence[int] = ()
    grace_s: float = 10.0
    first_delay_s: float = 0.2
    probe: Callable[[], Awaitable[bool]] = _alive
    started: Callable[[], None] = lambda: None
    final: frozenset[int] = frozenset()
    starts: int = field(default=0, init=False)
    pid: int | None = field(default=None, init=False)

    async def keep(self) -> int:
        """Keep it running until cancelled; its exit code if that is final."""
        failures = 0
        while True:
            began = time.monotonic()
            code = await self._run_once()
            if code is not None and code in self.final:
                return code
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            delay = min(self.first_delay_s * 2.0 ** (failures - 1), LONGEST_DELAY_S)
            how = "does not answer" if code is None else ending(code)
            log.warning("%s %s and is started again in %g s", self.name, how, delay)
            await asyncio.sleep(delay)

    async def _run_once(self) -> int | None:
        """Its exit code; None if it did not answer and was ended."""
        arguments = tuple(self.command())
        async with running(arguments, env=self.env, grace_s=self.grace_s, pass_fds=self.pass_fds) as process:
            self.starts, self.pid = self.starts + 1, process.pid
            self.started()
            try:
                return await probes.watch(process, self.probe, SupervisionSettings)
            finally:
                self.pid = None
