"""Which URLs images may be fetched from, before any name is resolved. Pure."""

import ipaddress
import re
from collections.abc import Collection

from yarl import URL

from proxy.faults import BadImage
from proxy.images.addresses import Address
from proxy.quoting import quoted

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # as the last part of a name: systems read the whole as an IPv4 address
MAX_URL = 8192  # characters


def checked_url(given: str, ports: Collection[int]) -> URL:
    """The URL, of http or https, without user and password, and with one of these ports. Raises BadImage."""
    if len(given) > MAX_URL:
        raise BadImage(f"is a URL of more than {MAX_URL} characters")
    try:
        url = URL(given).with_fragment(None)
        port, _ = url.port, url.host  # messages name the host, and not every `xn--…` can be decoded
    except ValueError as error:
        raise BadImage("is not a valid URL") from error
    if url.scheme not in {"http", "https"} or not url.raw_host:
        raise BadImage("is not a URL of http or https")
    if url.raw_user is not None or url.raw_password is not None:
        raise BadImage("is a URL with a user or a password, which are not sent")
    if port not in ports:
        raise BadImage(f"is a URL of port {port}: images are fetched from ports {', '.join(map(str, ports))}")
    address_of(url.raw_host)
    return url


def address_of(host: str) -> Address | None:
    """The address that a host is; None for a name. Raises BadImage for other notations of an address."""
    host = host.lower()
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not _NAME.fullmatch(host) or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        raise BadImage(f"is a URL whose host is neither a name nor an address in the usual notation: {quoted(host)}")
    return None
