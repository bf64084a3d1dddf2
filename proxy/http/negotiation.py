"""Which type of answer an Accept header prefers: RFC 9110, 12.5.1.

Our own, as aiohttp reads no Accept, and the libraries that do (werkzeug, WebOb) put specific ranges before the order in
which a client names them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.request import parse_http_list

_WEIGHT = re.compile(r"([01](?:\.\d*)?|\.\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Range:
    """One media range of the header, `text/plain`, `text/*` or `*/*`, and how much it is wanted."""

    name: str
    weight: float

    def fits(self, offer: str) -> bool:
        return self.name in {offer, offer.partition("/")[0] + "/*", "*/*"}

    @property
    def specific(self) -> int:
        return -self.name.count("*")


def preferred(accept: str, offers: Sequence[str]) -> str:
    """The one of `offers` with the greatest weight; of equal ones the one that the client, or else we, named first.

    What is malformed is passed over. Where nothing fits it is the first offer: an answer helps more than a 406.
    """
    ranges = list(_ranges(accept))
    wanted = [(*_wish(offer, ranges), offer) for offer in offers]
    weight, _, best = max(wanted, key=lambda wish: wish[:2])
    return best if weight else offers[0]


def _wish(offer: str, ranges: Sequence[_Range]) -> tuple[float, int]:
    """The weight of an offer, by the most specific range that it fits, and how early that stands: more is earlier."""
    fitting = [(one.specific, one.weight, -place) for place, one in enumerate(ranges) if one.fits(offer)]
    return max(fitting)[1:] if fitting else (0.0, 0)


def _ranges(accept: str) -> Iterator[_Range]:
    for part in parse_http_list(accept):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        pairs = (each.partition("=") for each in parameters)
        weight = next((value.strip() for key, _, value in pairs if key.strip() == "q"), "1")
        if _WEIGHT.fullmatch(weight):
            yield _Range(name, min(float(weight), 1.0))
