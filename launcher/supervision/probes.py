"""Liveness of the launcher's children: quick checks that never wait in the users' queue, and the watch on a process."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import orjson

from launcher.settings.config import SupervisionSettings

Probe = Callable[[], Awaitable[bool]]

_TIMEOUT = aiohttp.ClientTimeout(total=2)


async def backend_up(socket: Path) -> bool:
    """Whether the llama-server on this socket has loaded its model (/health answers 200)."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=_TIMEOUT) as session,
            session.get("http://llama-server/health") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def proxy_up(url: str) -> bool:
    """Whether the proxy at `url` is alive (/health answers 200)."""
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(f"{url}/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def backends_ready(url: str) -> dict[str, bool] | None:
    """Which backends of the proxy at `url` would serve a request now. None if no proxy answers."""
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(f"{url}/ready") as response:
            backends = orjson.loads(await response.read())["backends"]
            return {name: state == "ready" for name, state in backends.items()}
    except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


async def why_unready(url: str) -> str:
    """Why no trillama can be asked at `url`, as a sentence's predicate with the next step."""
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(f"{url}/ready") as response:
            return f"answers, but not as a trillama does (GET /ready: HTTP {response.status}): check the address"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return why_no_answer(error)


def why_no_answer(error: Exception) -> str:
    """Why an address gave no answer, as a sentence's predicate with the next step."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "cannot be found: no host has that name, check the address"
    if isinstance(error, aiohttp.ClientSSLError):
        return "does not speak TLS with a certificate that we trust: check the address and SSL_CERT_FILE"
    if isinstance(error, TimeoutError):
        return "does not answer in time: check the address, the network and the firewall"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "does not accept connections: start it there with `trillama serve`, or check the address"
    return f"broke off: {error}"


async def watch(
    process: asyncio.subprocess.Process, probe: Probe, policy: Callable[[], SupervisionSettings], *, up: bool = False
) -> int | None:
    """Return the process's exit code when it ends; None when it lives but missed `max_misses` probes in a row.

    Until it has answered once it is starting, which may take `stall_s`; `up`: it has. The policy is read for each
    probe: a reload may change it while the process runs.
    """
    misses = 0
    while True:
        now = policy()
        try:
            async with asyncio.timeout(now.probe_interval_s):
                return await process.wait()
        except TimeoutError:
            answered = await probe()
        misses, up = 0 if answered else misses + 1, up or answered
        if misses >= (now.max_misses if up else max(now.max_misses, int(now.stall_s / now.probe_interval_s))):
            return None
