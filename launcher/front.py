"""The proxy's life: started beside the backends, and again when it ends; the loaded models do not notice."""

import asyncio
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path

import tomli_w

from launcher import health
from launcher.backend import restart_delay
from launcher.child import running
from launcher.errors import ConfigError, StartError
from launcher.launch import Launch, socket_of
from launcher.projector import path_of
from launcher.watch import watch

log = logging.getLogger(__name__)

POLL_S = 0.05


def control_socket(folder: Path) -> Path:
    """Where the proxy is asked and told: see `launcher.lanes`."""
    return folder / "lanes.sock"


class Front:
    """Keeps the proxy running on the launch's listening socket, with the files that it writes into `folder`."""

    def __init__(self, launch: Launch, folder: Path) -> None:
        self._launch = launch
        self._folder = folder
        # As it was read: a family file that is being edited must not reach a proxy that is started anew.
        self._family = self._checked = launch.settings.family_file.read_bytes()
        self._family_file = folder / "family.toml"
        self._runs = 0
        self._scope: asyncio.Timeout | None = None

    async def serve(self) -> None:
        """Keep it running until cancelled. Raises ConfigError or StartError where starting it again would not help."""
        while True:
            try:
                async with asyncio.timeout(None) as scope:
                    self._scope = scope
                    await self._live()
            except TimeoutError:
                if not scope.expired():
                    raise
            finally:
                self._scope = None

    async def check(self, launch: Launch) -> None:
        """Raises ConfigError, with the proxy's own words, if it would refuse these settings; OSError on a full disk."""
        config, family = self._folder / "proxy.new.toml", self._folder / "family.new.toml"
        self._checked = launch.settings.family_file.read_bytes()
        family.write_bytes(self._checked)
        config.write_text(tomli_w.dumps({**self._settings(launch), "family": str(family)}), encoding="utf-8")
        argv = (sys.executable, "-P", "-m", "proxy", "--config", str(config), "--check")
        process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
        _, words = await process.communicate()
        if process.returncode:
            reason = words.decode(errors="replace").strip().rpartition(f"{config}: ")[2]
            reason = reason.replace(str(family), str(launch.settings.family_file))
            raise ConfigError(f"[proxy] in the configuration: {reason}")

    async def change(self, launch: Launch) -> None:
        """Start it again if the launch, which was checked, gives it other settings, and wait until it answers.

        Connections wait in the socket meanwhile; requests that wait in its lines are sent home with a 503.
        """
        same = self._settings(launch) == self._settings(self._launch) and self._family == self._checked
        self._launch, self._family = launch, self._checked
        if same or self._scope is None or self._scope.expired():
            return
        runs = self._runs
        self._scope.reschedule(0)
        while self._runs == runs or not await health.proxy_up(launch.url):  # noqa: ASYNC110 # another process
            await asyncio.sleep(POLL_S)

    async def _live(self) -> None:
        policy, failures = self._launch.settings.host.supervision, 0
        while True:
            started = time.monotonic()
            try:
                code = await self._run_once()
                what = "does not answer" if code is None else f"exited with {code}"
            except OSError as error:  # a full disk, no more processes: that may pass, and the models stay loaded
                code, what = None, f"cannot be started: {error}"
            if code == ConfigError.exit_code:
                raise ConfigError("the proxy refused its settings, [proxy] in the configuration; its reason is above")
            failures = 1 if time.monotonic() - started > policy.stable_s else failures + 1
            delay = restart_delay(policy, failures, was_ready=True)
            if delay is None:
                raise StartError(f"the proxy {what}; its reason is above")
            log.warning("the proxy %s and is started again in %g s", what, delay)
            await asyncio.sleep(delay)

    async def _run_once(self) -> int | None:
        """Its exit code; None if it hangs."""
        config = self._folder / "proxy.toml"
        self._family_file.write_bytes(self._family)
        config.write_text(tomli_w.dumps(self._settings(self._launch)), encoding="utf-8")
        fd, policy = self._launch.listener.fileno(), self._launch.settings.host.supervision
        # -P: never a folder `proxy` of the user's
        argv = (sys.executable, "-P", "-m", "proxy", "--config", str(config), "--listen-fd", str(fd))
        grace_s = policy.grace_s + 2  # its own bound is grace_s: `drain_s` below
        async with running(argv, env=os.environ, grace_s=grace_s, pass_fds=(fd,)) as process:
            self._runs += 1
            return await watch(process, partial(health.proxy_up, self._launch.url), policy)

    def _settings(self, launch: Launch) -> dict[str, object]:
        """The proxy's file: the user's `[proxy]` table and what only the launcher knows. See proxy/config.py."""
        host = launch.settings.host
        backends = {
            name: {
                "url": f"unix://{socket_of(self._folder, name)}",
                "slots": host.engine.slots,
                "batch_tokens": launch.settings.max_input_tokens,
                "on_demand": name in launch.models and launch.on_demand(name),
                **({"model_file": str(launch.models[name])} if name in launch.models else {}),
            }
            for name in launch.settings.family.weights.models
        }
        family = launch.settings.family
        # Not for the demo: the original's projector knows nothing of its models' states.
        projector = {"multivector_file": str(path_of(family))} if family.multivector and not host.demo else {}
        notice = {"notice": host.notice} if host.notice else {}
        return {
            # Cores compute one batch faster than three at a time.
            "serial_backends": not (host.engine.gpu_layers and launch.devices.gpus),
            **projector,
            **host.proxy,
            **notice,
            "family": str(self._family_file),
            "host": host.host,
            "port": host.port,
            "control": str(control_socket(self._folder)),
            "drain_s": host.supervision.grace_s,
            "max_input_tokens": launch.settings.max_input_tokens,
            "backends": backends,
        }
