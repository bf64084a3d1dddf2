"""Nodes that the user names by --node: they run under services of their own, without Ray."""

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

import aiohttp
import orjson
from pydantic import ValidationError

from launcher.errors import ArgumentError, NotRunning
from launcher.fleet.address import server_url
from launcher.settings.config import shipped_families
from launcher.supervision.probes import why_unready
from proxy.contract.front import NODE_LIST

_OPTION, _EXAMPLE = "--node", "give one like http://gpu1:8080"
_TIMEOUT = aiohttp.ClientTimeout(total=5)


def node_urls(given: Sequence[str]) -> dict[str, str]:
    """The nodes' URLs by host and port, as a Front takes them. Raises ArgumentError."""
    urls = [server_url(one, _OPTION) for one in given]
    for url in urls:
        try:
            NODE_LIST.validate_python({_name_of(url): url})
        except ValidationError as error:
            raise ArgumentError(f"{_OPTION} {url} is not the address of a node: {_EXAMPLE}") from error
    return {_name_of(url): url for url in urls}


async def check_hosts(urls: Iterable[str]) -> None:
    """Raises NotRunning for a host that has no address: a mistyped name would never be served."""
    for url in urls:
        try:
            await asyncio.get_running_loop().getaddrinfo(urlsplit(url).hostname, None)
        except (socket.gaierror, UnicodeError) as error:
            raise NotRunning(f"{_OPTION} {url}: no host has that name: check the address") from error


async def served_family(urls: Mapping[str, str]) -> str:
    """The shipped family that the first of these nodes serves. Raises NotRunning, naming what else to do."""
    url = next(iter(urls.values()))
    advice = "or name the family with --family"
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(f"{url}/v1/models") as response:
            if response.status == 401:
                raise NotRunning(f"{_OPTION} {url} asks for a key: give a CLUSTER.toml with its api_keys")
            name = str(orjson.loads(await response.read())["data"][0]["id"]).partition(":")[0]
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise NotRunning(f"{_OPTION} {url} {await why_unready(url)}, {advice}") from error
    if name.casefold() not in shipped_families():
        raise NotRunning(f"{_OPTION} {url} serves {name}, which is no family of this trillama: {advice}, a file's path")
    return name


def _name_of(url: str) -> str:
    return urlsplit(url).netloc.replace("[", "").replace("]", "")
