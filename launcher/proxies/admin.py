"""Client of the proxy's control socket: reads and pauses its queues; the launcher's side of `proxy/http/admin.py`."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

ASK = aiohttp.ClientTimeout(total=2)
PAUSE = aiohttp.ClientTimeout(total=30)  # the longest batch on the slowest host that is of any use


class QueueState(BaseModel):
    """One backend's queue. `idle_s` is the time since its last request left, 0 while one is waiting or in flight;
    `tokens_per_s` is the speed of its latest batches.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: str
    waiting_texts: int
    waiting_tokens: int
    in_flight_texts: int
    tokens_per_s: float
    idle_s: float

    @property
    def paused(self) -> bool:
        """Whether the launcher has paused it."""
        return self.state == "held"

    @property
    def used(self) -> bool:
        """Whether it has a request now."""
        return self.idle_s == 0


QUEUES = TypeAdapter(dict[str, QueueState])


@dataclass(frozen=True, slots=True)
class ProxyAdmin:
    """One proxy's control socket. A proxy that is down has no queues and receives no commands."""

    socket: Path

    async def queues(self) -> dict[str, QueueState]:
        """Every backend's queue by its name; empty if the proxy does not answer."""
        try:
            async with self._session(ASK) as session, session.get("http://proxy/lanes") as response:
                return QUEUES.validate_json(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValidationError):
            return {}

    async def tell(self, path: str, body: str = "", limit: aiohttp.ClientTimeout = ASK) -> bool:
        """Send a command; whether the proxy has carried it out."""
        try:
            async with self._session(limit) as session, session.post(f"http://proxy/{path}", data=body) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _session(self, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)), timeout=timeout)


@dataclass(frozen=True, slots=True)
class ProxyAdmins:
    """The proxy that serves, and one that is finishing beside it: `admins` returns the serving one first."""

    admins: Callable[[], Sequence[ProxyAdmin]]

    async def queues(self) -> dict[str, QueueState]:
        """Every backend's queue by its name; empty if the proxy does not answer."""
        return await self.admins()[0].queues()

    async def pause(self, name: str, progress: str) -> None:
        """Pause a backend until none of its batches is in flight. Requests that time out report `progress`."""
        await asyncio.gather(*(one.tell(f"lanes/{name}/hold", progress, PAUSE) for one in self.admins()))

    async def resume(self, name: str) -> bool:
        """Let its requests continue; True if the serving proxy has done so."""
        done = await asyncio.gather(*(one.tell(f"lanes/{name}/release") for one in self.admins()))
        return done[0]
