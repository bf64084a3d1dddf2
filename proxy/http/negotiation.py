"""Which type of response an Accept header prefers: RFC 9110, 12.5.1.

Our own, as aiohttp does not read Accept, and the libraries that do (werkzeug, WebOb) rank specific ranges before the
client's order.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.request import parse_http_list

MAX_ACCEPT = 2048  # characters that are read, in a millisecond or two: browsers send 200, an attacker 60,000
_WEIGHT = re.compile(r"([01](?:\.\d*)?|\.\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Range:
    """One media range of the header, `text/plain`, `text/*` or `*/*`, and its weight."""

    name: str
    weight: float

    def fits(self, offer: str) -> bool:
        return self.name in {offer, offer.partition("/")[0] + "/*", "*/*"}

    @property
    def specific(self) -> int:
        return -self.name.count("*")


def preferred(accept: str, offers: Sequence[str]) -> str:
    """The offer with the greatest weight; of equal ones the first in the client's order, then in ours.

    Malformed ranges are ignored, as is what follows MAX_ACCEPT characters. If nothing matches it is the first offer: a
    response is more useful than a 406.
    """
    ranges = list(_ranges(accept[:MAX_ACCEPT]))
    ranked = [(*_preference(offer, ranges), offer) for offer in offers]
    weight, _, best = max(ranked, key=lambda row: row[:2])
    return best if weight else offers[0]


def _preference(offer: str, ranges: Sequence[_Range]) -> tuple[float, int]:
    """The weight of an offer, from the most specific range that it matches, and minus that range's position."""
    fitting = [(one.specific, one.weight, -place) for place, one in enumerate(ranges) if one.fits(offer)]
    return max(fitting)[1:] if fitting else (0.0, 0)


def _ranges(accept: str) -> Iterator[_Range]:
    for part in parse_http_list(accept):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        pairs = (each.partition("=") for each in parameters)
        weight = next((value.strip() for key, _, value in pairs if key.strip() == "q"), "1")
        if _WEIGHT.fullmatch(weight):
            yield _Range(name, min(float(weight), 1.0))
