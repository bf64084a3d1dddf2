"""Downloads images from the addresses that clients send, without opening a door into this host's own network.

Each address that a name resolves to is checked, and the connection goes to exactly those that were: a name that
resolves to another address a moment later gains nothing. Redirects are followed by hand, each checked like the first.
Nothing of the operator's is sent: no cookies, no credentials, no proxy of the environment.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import ip_address
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from proxy.contract.images import ImageOptions
from proxy.faults import BadImage
from proxy.images.addresses import AddressRules
from proxy.images.sources import check_file_size
from proxy.images.urls import address_of, checked_url

MAX_REDIRECTS = 3
FETCHES, FETCHES_PER_HOST = 8, 4  # files that are fetched at a time
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": "trillama", "Accept": "image/*", "Accept-Encoding": "identity"}
_PIECE = 64 * 2**10  # bytes that are read at a time

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]  # of a host's name: its addresses


@contextmanager
def system_lookup() -> Iterator[Lookup]:
    """As this system resolves names, in threads of its own: a name server that hangs holds up nothing else.

    Raises OSError for a name without addresses.
    """
    threads = ThreadPoolExecutor(FETCHES, "image-names")

    async def lookup(host: str, port: int) -> Sequence[str]:
        resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(threads, resolve)
        except UnicodeError as error:  # a part of the name is longer than any can be
            raise OSError(f"not a name: {host}") from error
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

    try:
        yield lookup
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def fetching(options: ImageOptions, lookup: Lookup) -> AsyncIterator["Fetcher"]:
    """A fetcher for the block."""
    rules = AddressRules() if isinstance(options.urls, str) else AddressRules.listed(options.urls)
    connector = aiohttp.TCPConnector(
        resolver=_CheckedResolver(rules, lookup), use_dns_cache=False, force_close=True, limit=FETCHES
    )
    session = aiohttp.ClientSession(
        connector=connector,
        headers=_HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
    )
    async with session:
        yield Fetcher(options, rules, session)


class Fetcher:
    """Fetches images within the limits of the options."""

    def __init__(self, options: ImageOptions, rules: AddressRules, session: aiohttp.ClientSession) -> None:
        self._options, self._rules, self._session = options, rules, session
        self._ports = dict.fromkeys((80, 443, *options.ports))
        self._places = asyncio.Semaphore(FETCHES)
        self._host_places = WeakValueDictionary[str, asyncio.Semaphore]()

    @asynccontextmanager
    async def fetched(self, given: str) -> AsyncIterator[bytes]:
        """The file at that URL. Until the block ends it is one of the FETCHES that are held.

        Raises BadImage; its message names the host, and nothing that the host answered.
        """
        if self._options.urls == "off":
            raise BadImage(
                "is a URL, and this server fetches none (`urls` under [proxy.images] is off): send the file, as base64"
            )
        url = self._checked(given)
        places = self._host_places.setdefault(url.raw_host or "", asyncio.Semaphore(FETCHES_PER_HOST))
        async with places, self._places:
            yield await self._file(url)

    async def _file(self, url: URL) -> bytes:
        try:
            async with asyncio.timeout(self._options.fetch_timeout_s):
                return await self._follow(url)
        except TimeoutError:
            message = f"could not be fetched from {url.host} within {self._options.fetch_timeout_s:g} s"
            raise BadImage(message) from None

    async def _follow(self, url: URL) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(url)
            if isinstance(answer, bytes):
                return answer
            url = self._checked(str(answer))
        raise BadImage(f"could not be fetched: more than {MAX_REDIRECTS} redirects, the last from {url.host}")

    async def _get(self, url: URL) -> bytes | URL:
        """The file, or where the host redirects to."""
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    return url.join(URL(response.headers.get("Location", "")))
                if response.status != 200:
                    raise BadImage(f"could not be fetched: {url.host} answered {response.status}")
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise BadImage(f"could not be fetched: {url.host} sent it compressed, which was not asked for")
                return await self._read(response)
        except aiohttp.ClientConnectorDNSError:
            raise _forbidden(url.host or "") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a redirect to what is no URL
            if isinstance(error, TimeoutError):
                raise
            raise BadImage(f"could not be fetched from {url.host}: {_reason(error)}") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        check_file_size(response.content_length or 0, self._options.max_bytes)
        parts, size = list[bytes](), 0
        async for part in response.content.iter_chunked(_PIECE):
            size += len(part)
            check_file_size(size, self._options.max_bytes)
            parts.append(part)
        return b"".join(parts)

    def _checked(self, given: str) -> URL:
        """The URL, if its host may be asked; names are checked again when they are resolved. Raises BadImage."""
        url = checked_url(given, self._ports)
        host = url.raw_host or ""
        if (address := address_of(host)) and not self._rules.allow(host, address):
            raise _forbidden(host)
        return url


class _CheckedResolver(AbstractResolver):
    """Resolves a name to its addresses, all of which must be allowed: a connection is made to these, and no other."""

    def __init__(self, rules: AddressRules, lookup: Lookup) -> None:
        self._rules, self._lookup = rules, lookup

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 # all families, so that all are checked
    ) -> list[ResolveResult]:
        name, found = host.lower().rstrip("."), list[ResolveResult]()
        for written in await self._lookup(name, port):
            address = ip_address(written)
            if not self._rules.allow(name, address):
                raise _forbidden(host)
            kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
            found.append(
                ResolveResult(hostname=host, host=written, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            )
        return found

    async def close(self) -> None:
        """It holds nothing."""


def _forbidden(host: str) -> BadImage:
    """The same words whether a name has no address or a private one: nobody learns the names of this network."""
    return BadImage(
        f"could not be fetched from {host}: it has no address that this server fetches from (`urls` under "
        "[proxy.images] says which)"
    )


def _reason(error: Exception) -> str:
    """What went wrong, without anything that the host sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "its certificate is not valid"
    return "it cannot be reached" if isinstance(error, aiohttp.ClientConnectorError) else "its answer is broken"
