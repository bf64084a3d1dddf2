"""Which addresses images may be fetched from, however an address is written. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_UNICAST6 = ip_network("2000::/3")  # all public IPv6 addresses so far
_NAT64 = ip_network("64:ff9b::/96")  # an IPv4 address in its last 32 bits
# Python's `is_global` does not know all of these, or not in every version: Azure's own platform, relays and tunnels
# (6to4, Teredo), which have another address inside, protocol assignments and documentation.
_NOT_PUBLIC = [
    *map(ip_network, ("168.63.129.16/32", "192.88.99.0/24", "192.0.0.0/24")),
    *map(ip_network, ("2002::/16", "2001::/23", "3fff::/20")),
]


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Which addresses a host's name may stand for: public ones; or, for a list, what it names, and nothing else."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    public: bool = field(default=True, kw_only=True)

    @classmethod
    def listed(cls, allowed: Sequence[str]) -> "AddressRules":
        """The rules for a list of hosts and networks."""
        networks = tuple(ip_network(one) for one in allowed if "/" in one)
        return cls(frozenset(one for one in allowed if "/" not in one), networks, public=False)

    def allow(self, host: str, address: Address) -> bool:
        if self.public:
            return is_public(address)
        return host in self.hosts or any(_plain(address) in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether everybody on the internet means the same host by it."""
    address = _plain(address)
    if any(address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, IPv6Address) and address not in _UNICAST6:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _plain(address: Address) -> Address:
    """The IPv4 address that a packet to this IPv6 address is sent to, if it has one inside."""
    if isinstance(address, IPv4Address):
        return address
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.ipv4_mapped or address
