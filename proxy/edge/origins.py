"""Which host names and which other sites' pages are accepted from browsers while there are no keys.

Without keys everyone who reaches the port is served, and any site's page reaches it from its reader's browser. Two
headers reveal such a page. `Origin` names the page's site; a page cannot leave it out of a POST. `Host` is the name
that the browser connected to: with DNS rebinding a page's own name resolves to this server, which makes it the same
origin, but then the name is one that an attacker can register.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from proxy.errors import BadRequest, ForeignHost, ForeignOrigin
from proxy.quoting import quoted

# An address in brackets, or a name (with underscores, as containers have them); perhaps a port.
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)(?:%[\w.~-]+)?\]|([\w.-]*[\w-])\.?)(?::\d{0,5})?", re.ASCII | re.IGNORECASE)
# Not in the public DNS: RFC 6761, RFC 6762 with its appendix G, RFC 8375; `internal` is reserved by ICANN.
PRIVATE = ("localhost", "local", "home.arpa", "intranet", "internal", "private", "corp", "home", "lan")
MAX_HOST = 300  # characters of a Host: names have 253 at most
ANY = "*"
READING = frozenset({"GET", "HEAD", "OPTIONS"})  # compute nothing, and a page cannot read the answer
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@lru_cache(maxsize=256)  # clients have few, and each request has one
def host_of(header: str) -> str | None:
    """The name or address in a `Host` header, in lower case; None if it is neither."""
    found = _HOST.fullmatch(header) if len(header) <= MAX_HOST else None
    return (found[1] or found[2]).lower() if found else None


@lru_cache(maxsize=256)
def is_private(host: str) -> bool:
    """Whether no attacker can make this name resolve here: an address, a name without a dot, or one under PRIVATE."""
    *above, last = host.split(".")
    return not above or last.isdigit() or ":" in host or host.endswith(tuple(f".{name}" for name in PRIVATE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """`hosts` are names of this server, `pages` the origins whose pages may use it; ANY allows all.

    `needs_key`: it has keys, which no page knows.
    """

    hosts: frozenset[str]
    pages: frozenset[str]
    needs_key: bool

    def check(self, method: str, host: str, headers: Mapping[str, str]) -> None:
        """Raises BadRequest for a malformed Host; without keys, ForeignHost and ForeignOrigin."""
        name = host_of(host)
        if name is None:
            raise BadRequest("the Host header is neither a name nor an address")  # not quoted: a page may show this
        if self.needs_key:
            return
        if not self.knows(name):
            raise ForeignHost(
                f"{quoted(name)} is not known as a name of this server: add it to allowed_hosts under [proxy], "
                "or set api_keys there"
            )
        if not self._same_site(method, host, headers):
            raise ForeignOrigin(
                "a page of another site sent this: to let it use this server, add its origin to cors_origins "
                "under [proxy]"
            )

    def check_own_page(self, host: str, headers: Mapping[str, str]) -> None:
        """Raises ForeignOrigin for what a page of another origin sent, also if it is one of `pages`."""
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        if not _same_origin(origin, host) if origin else site in {"cross-site", "same-site"}:
            raise ForeignOrigin("only the console's own page may send this from a browser")

    def knows(self, name: str) -> bool:
        """Whether that can be a name of this server."""
        return is_private(name) or name in self.hosts or ANY in self.hosts

    def allows(self, origin: str) -> bool:
        """Whether pages of that origin may use this server and read its responses."""
        return origin in self.pages or ANY in self.pages

    def _same_site(self, method: str, host: str, headers: Mapping[str, str]) -> bool:
        if origin := headers.get("Origin"):
            return self.allows(origin) or _same_origin(origin, host)
        return method in READING or headers.get("Sec-Fetch-Site") not in {"cross-site", "same-site"}


def _same_origin(origin: str, host: str) -> bool:
    """Whether a page of that origin was served by `host`; the scheme may differ: a reverse proxy may terminate TLS."""
    scheme, _, authority = origin.lower().partition("://")
    return authority == host.lower().removesuffix(DEFAULT_PORTS.get(scheme, ""))
