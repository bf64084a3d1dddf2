"""What the launcher asks of its children: is it up? Quick questions that never wait in the users' line."""

from pathlib import Path

import aiohttp
import orjson

TIMEOUT = aiohttp.ClientTimeout(total=2)


async def backend_up(socket: Path) -> bool:
    """Whether the llama-server on this socket has loaded its model (/health answers 200)."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=TIMEOUT) as session,
            session.get("http://llama-server/health") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def proxy_up(url: str) -> bool:
    """Whether the proxy at `url` is alive (/health answers 200)."""
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session, session.get(f"{url}/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def backends_ready(url: str) -> dict[str, bool] | None:
    """Of a running proxy: which backends would serve a request now. None if no proxy answers at `url`."""
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session, session.get(f"{url}/ready") as response:
            backends = orjson.loads(await response.read())["backends"]
            return {name: state == "ready" for name, state in backends.items()}
    except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
