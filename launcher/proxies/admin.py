"""The proxy's lines, asked and told over its control socket; the launcher's side of `proxy/http/admin.py`."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

ASK = aiohttp.ClientTimeout(total=2)
HOLD = aiohttp.ClientTimeout(total=30)  # the longest batch on the slowest host that is of any use


class QueueState(BaseModel):
    """One backend's line. `idle_s` is since its last request left, 0 while there is one, waiting anywhere or in flight;
    `tokens_per_s` is of its latest calls.
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
        """Whether it was told to wait."""
        return self.state == "held"

    @property
    def used(self) -> bool:
        """Whether somebody waits for it now."""
        return self.idle_s == 0


LANES = TypeAdapter(dict[str, QueueState])


@dataclass(frozen=True, slots=True)
class ProxyAdmin:
    """One proxy's control socket. A proxy that is down has no queues, and hears nothing."""

    socket: Path

    async def look(self) -> dict[str, QueueState]:
        """Every backend's queue; empty if the proxy does not answer."""
        try:
            async with self._session(ASK) as session, session.get("http://proxy/lanes") as response:
                return LANES.validate_json(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValidationError):
            return {}

    async def tell(self, path: str, body: str = "", patience: aiohttp.ClientTimeout = ASK) -> bool:
        """Whether the proxy heard it, and has done it."""
        try:
            async with self._session(patience) as session, session.post(f"http://proxy/{path}", data=body) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _session(self, patience: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)), timeout=patience)


@dataclass(frozen=True, slots=True)
class ProxyAdmins:
    """The queues of the proxy that serves, and of one that finishes beside it: `admins` has that one first."""

    admins: Callable[[], Sequence[ProxyAdmin]]

    async def look(self) -> dict[str, QueueState]:
        """Every backend's queue; empty if the proxy does not answer."""
        return await self.admins()[0].look()

    async def hold(self, name: str, progress: str) -> None:
        """Return when nothing of that backend is in flight any more; its requests wait, and learn `progress`."""
        await asyncio.gather(*(one.tell(f"lanes/{name}/hold", progress, HOLD) for one in self.admins()))

    async def release(self, name: str) -> bool:
        """Let its requests continue; True if the proxy that serves heard it."""
        heard = await asyncio.gather(*(one.tell(f"lanes/{name}/release") for one in self.admins()))
        return heard[0]
