"""One proxy with the settings of one deployment: kept running until it is told to finish."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import tomli_w

import trillama
from launcher.errors import ConfigError, StartError
from launcher.processes.child import running
from launcher.proxies.admin import ProxyAdmin, QueueState
from launcher.proxies.settings import proxy_settings
from launcher.settings.config import SupervisionSettings
from launcher.settings.folders import write_error
from launcher.supervision import probes
from launcher.supervision.backend import restart_delay
from launcher.supervision.deployment import Deployment

log = logging.getLogger(__name__)

_START_S = 30.0  # to load Python and our packages
MAX_STARTS = 3  # of a proxy that exits before it was ever up: what it lacks will not be there a fourth time


class ProxyProcess:
    """`paused` returns the backends that it has to start with paused, each time it is started.

    Until it is `accepting`, another proxy serves, and this one is not restarted if it ends.
    """

    def __init__(
        self, deployment: Deployment, folder: Path, number: int, paused: Callable[[], Collection[str]]
    ) -> None:
        self.deployment = deployment
        self.admin = ProxyAdmin(folder / f"proxy-{number}.sock")
        self.accepting = False
        self.ended = asyncio.Event()
        self.fault = "the proxy refused its settings; its reason is above"
        self._finishing = False
        self._was_up = False
        self._without_cache = False
        self._folder = folder
        self._paused = paused
        self._file = folder / f"{number}.proxy.toml"
        # As it is now: a family file that is edited later must not reach a restarted proxy.
        self._family = deployment.settings.family_file.read_bytes()
        self._family_file = folder / f"{number}.family.toml"

    def serves(self, deployment: Deployment) -> bool:
        """Whether a proxy for that deployment would have the same settings."""
        mine, other = (proxy_settings(one, self._folder) for one in (self.deployment, deployment))
        return mine == other and self._family == deployment.settings.family_file.read_bytes()

    async def keep(self) -> None:
        """Keep it running until it has finished. Raises StartError or ConfigError if another start would not help."""
        try:
            failures = 0
            while True:
                started = time.monotonic()
                code, outcome = await self._ended()
                if self._finishing:
                    return
                policy = self.deployment.settings.host.supervision
                steady = self._was_up and time.monotonic() - started > policy.stable_s
                failures = 1 if steady else failures + 1
                delay = restart_delay(policy, failures, was_ready=True)
                hopeless = code is not None and not self._was_up and failures >= MAX_STARTS
                if delay is None or hopeless or not self.accepting:
                    self.fault = f"the proxy {outcome}; its reason is above"
                    raise StartError(self.fault)
                log.warning("the proxy %s and is restarted in %g s", outcome, delay)
                await asyncio.sleep(delay)
        finally:
            self.ended.set()

    async def queues(self) -> dict[str, QueueState]:
        """Every backend's queue by its name; empty if the proxy does not answer."""
        return await self.admin.queues()

    async def accept(self) -> None:
        """Take connections from now on. Raises StartError if the proxy does not confirm it."""
        if not await self.admin.tell("accept"):
            raise StartError("the new proxy ended before it took over; its reason is above")
        self.accepting = True

    async def finish(self) -> None:
        """Answer all requests it has, and end. If it hangs, the watch ends it."""
        self._finishing = True
        await self.admin.tell("finish")

    async def _ended(self) -> tuple[int | None, str]:
        """A run: exit code, None if it hung, and its end in words. Raises ConfigError for settings refused at first."""
        try:
            code = await self._run_once()
        except OSError as error:  # a full disk, too many processes: that may pass, and the models stay loaded
            return None, f"cannot be started: {write_error(error, self._folder, 'runtime_dir')}"
        refused = code == ConfigError.exit_code
        if refused and not self._was_up:
            raise ConfigError("the proxy refused its settings, [proxy] in the configuration; its reason is above")
        self._without_cache = refused  # it has served with them: the file's place is gone or no longer ours
        if refused:
            return code, "refused the settings that it had served with (its reason is above)"
        return code, "does not answer" if code is None else f"exited with {code}"

    async def _run_once(self) -> int | None:
        """Its exit code; None if it hangs. Raises ConfigError if another program's `proxy` has overwritten ours."""
        if problem := trillama.intruder():
            raise ConfigError(problem)
        self._write()
        fd, policy = self.deployment.listener.fileno(), self.deployment.settings.host.supervision
        # -P: never a folder `proxy` in the working directory
        argv = (sys.executable, "-P", "-m", "proxy", "--config", str(self._file), "--listen-fd", str(fd))
        how = () if self.accepting else ("--take-over",)
        grace_s = policy.grace_s + 2  # its own bound is grace_s: `drain_s` of its settings
        async with running((*argv, *how), env=os.environ, grace_s=grace_s, pass_fds=(fd,)) as process:
            return await probes.watch(process, self._probe, self._policy)

    def _policy(self) -> SupervisionSettings:
        """The deployment's, but with at least _START_S to start: a slow machine needs that to load Python."""
        policy = self.deployment.settings.host.supervision
        return policy.model_copy(update={"stall_s": max(policy.stall_s, _START_S)})

    async def _probe(self) -> bool:
        up = bool(await self.queues())
        self._was_up = self._was_up or up
        return up

    def _write(self) -> None:
        """Write its settings and its copy of the family file."""
        settings = proxy_settings(self.deployment, self._folder, self._paused()).model_copy(
            update={"family": self._family_file, "control": self.admin.socket}
        )
        if self._without_cache:
            settings = settings.model_copy(update={"cache_bytes": 0, "cache_file": None})
        self._family_file.write_bytes(self._family)
        text = tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
        self._file.write_text(text, encoding="utf-8")
