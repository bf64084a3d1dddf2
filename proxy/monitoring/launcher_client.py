"""Client of the launcher's control socket: what it knows about the backends' processes."""

from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import ValidationError

from proxy.contract.admin import LauncherReport

TIMEOUT = aiohttp.ClientTimeout(total=1)
ACTION = aiohttp.ClientTimeout(total=None, sock_connect=1)  # loading a model takes as long as it takes


@dataclass(frozen=True, slots=True)
class LauncherClient:
    """`socket` is None for a proxy that no launcher started."""

    socket: Path | None

    async def report(self) -> LauncherReport | None:
        """The processes now; None if no launcher answers."""
        if self.socket is None:
            return None
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)), timeout=TIMEOUT) as session,
                session.get("http://launcher/processes") as response,
            ):
                return LauncherReport.model_validate_json(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValidationError):
            return None

    async def tell(self, path: str) -> str:
        """Make the launcher do something; why it did not, or nothing once it is done."""
        if self.socket is None:
            return "no launcher started this proxy"
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket)), timeout=ACTION) as session,
                session.post(f"http://launcher{path}") as response,
            ):
                return "" if response.status == 200 else await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"the launcher does not answer: {error!r}"
