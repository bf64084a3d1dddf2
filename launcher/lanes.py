"""The proxy's lines, asked and told over its control socket; the launcher's side of `proxy/control.py`."""

from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

ASK = aiohttp.ClientTimeout(total=2)
HOLD = aiohttp.ClientTimeout(total=30)  # the longest batch on the slowest host that is of any use


class Lane(BaseModel):
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
    def held(self) -> bool:
        """Whether it was told to wait."""
        return self.state == "held"

    @property
    def used(self) -> bool:
        """Whether somebody waits for it now."""
        return self.idle_s == 0


LANES = TypeAdapter(dict[str, Lane])


@dataclass(frozen=True, slots=True)
class Lanes:
    """Every method does without a proxy that is down: there are no lines then, and nobody waits in them."""

    socket: Path

    async def look(self) -> dict[str, Lane]:
        """Every backend's line; empty if the proxy does not answer."""
        try:
            async with self._session(ASK) as session, session.get("http://proxy/lanes") as response:
                return LANES.validate_json(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValidationError):
            return {}

    async def hold(self, name: str, progress: str) -> bool:
        """True when nothing of that backend is in flight any more; its requests wait, and learn `progress`."""
        return await self._tell(f"{name}/hold", progress, HOLD)

    async def release(self, name: str) -> bool:
        """Let its requests go on; True if the proxy heard it."""
        return await self._tell(f"{name}/release", "", ASK)

    async def _tell(self, path: str, body: str, patience: aiohttp.ClientTimeout) -> bool:
        try:
            async with (
                self._session(patience) as session,
                session.post(f"http://proxy/lanes/{path}", data=body) as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _session(self, patience: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)), timeout=patience)
