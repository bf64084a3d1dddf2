"""Server addresses as people write them, and which running server one means."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from launcher.errors import ArgumentError

LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 # compared, not bound
API = (
    "/v1/embeddings",
    "/v1",
)  # copied along: other services' clients want them


def server_url(given: str, option: str = "--url") -> str:
    """The base URL: `localhost:8080` and `http://localhost:8080/v1/` are the same.

    Raises ArgumentError, which names the option, if it is not an address.
    """
    text = given.strip()
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right or not url.isprintable() or " " in url or parts.query or parts.fragment:
        raise ArgumentError(f"{option} {given!r} is not the address of a server: give one like http://localhost:8080")
    ending = next((ending for ending in API if url.endswith(ending)), "")
    return url.removesuffix(ending)


def given_url(url: str | None, port: int | None) -> str | None:
    """The base URL that the options --url and --port mean; None without them. Raises ArgumentError for both."""
    if url is not None and port is not None:
        raise ArgumentError("--url has a port already: leave out --port")
    return f"http://127.0.0.1:{port}" if port is not None else url


@dataclass(frozen=True, slots=True)
class Target:
    """The server on this machine that a command means by --url or --port."""

    host: str | None = None
    port: int | None = None

    def is_meant(self, url: str, port: int) -> bool:
        """Whether it means the server that listens on that port at that URL."""
        return port == self.port and self.host in (None, urlsplit(url).hostname)

    def __str__(self) -> str:
        return f"port {self.port}" if self.host is None else f"{self.host}:{self.port}"


def target(url: str | None, port: int | None) -> Target | None:
    """What the two options mean; None without them. Raises ArgumentError for both, or if --url is not an address."""
    if url is None:
        return None if port is None else Target(port=port)
    if port is not None:
        raise ArgumentError("--url has a port already: leave out --port")
    parts = urlsplit(server_url(url))
    host = None if parts.hostname in LOCAL else parts.hostname
    return Target(host, parts.port or (443 if parts.scheme == "https" else 80))
