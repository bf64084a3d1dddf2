"""A request's body: bytes → JSON → the parsed request. Large ones are checked before parsing, and parsed off the loop.

32 MiB can be ten million lists, which hold the GIL for seven seconds and take a gigabyte. So strings, lists and objects
are counted before any is built, and all values separately, as numbers are smaller.
"""

import asyncio
import re
from collections.abc import Callable
from itertools import islice
from typing import TypeVar

import numpy as np
import orjson

from proxy.errors import NotJson
from proxy.faults import invalid

T = TypeVar("T")

_LARGE = 2**18  # bytes from which parsing is worth a thread: about a millisecond of the loop
_MANY = 1000  # commas from which it is, too: an item of a list takes some microseconds
MAX_FIELDS = 2**16  # strings, lists and objects beside the inputs: clients send fields of their own
PER_INPUT = 32  # the same in one input: an object with a content of six parts
MAX_VALUES = 2**23  # including numbers; as token ids they would be 40 MB
MAX_HALVES = 2**16  # lone surrogates in a body; more are no accident, and each costs a quarter of a microsecond

_HEX = rb"[0-9a-fA-F]{2}"
_HIGH, _LOW = rb"\\u[dD][89abAB]" + _HEX, rb"\\u[dD][c-fC-F]" + _HEX
# All alternatives share one prefix, which keeps the search fast: half a second for the worst 32 MiB.
_HALF = re.compile(rb"\\u[dD](?:[89abAB]%b(?!%b)|[c-fC-F]%b(?<!%b%b))" % (_HEX, _LOW, _HEX, _HIGH, _LOW))


async def parsed(body: bytes, parse: Callable[[object], T], inputs: int) -> T:
    """Parse a body of at most `inputs` inputs. Raises NotJson, Invalid, and what `parse` raises."""
    if len(body) < _LARGE and body.count(b",") < _MANY:
        return parse(loads(body))
    return await asyncio.to_thread(_parsed, body, parse, MAX_FIELDS + PER_INPUT * inputs)


def loads(body: bytes) -> object:
    """The JSON's value. Half a surrogate pair, left where a client cut a text, becomes U+FFFD. Raises NotJson."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if (whole := _without_halves(body)) is not None:
            return loads(whole)
        raise NotJson(f"the body is not JSON: {error}") from error


def has_more(body: bytes, most: int, values: int = MAX_VALUES) -> bool:
    """Whether a body has more than `most` strings, lists and objects, or more than `values` values in all.

    Builds none of them.
    """
    seen = np.frombuffer(body, dtype=np.uint8)  # counted without the GIL, ten times as fast as with `bytes.count`
    quotes, commas = np.count_nonzero(seen == ord('"')), np.count_nonzero(seen == ord(","))
    opened = np.count_nonzero(seen | 0x20 == ord("{"))  # or `[`
    if quotes // 2 + opened <= most and commas < values:
        return False
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    strings = plain.count(b'"') // 2
    if strings > most:
        return True
    outside = b"".join(plain.split(b'"')[::2])
    return strings + outside.count(b"[") + outside.count(b"{") > most or outside.count(b",") >= values


def _parsed(body: bytes, parse: Callable[[object], T], most: int) -> T:
    if has_more(body, most):
        message = (
            f"the body has more than {most} texts, lists and objects, or {MAX_VALUES} values: send fewer at a time"
        )
        raise invalid("input", message, kind="too_long")
    return parse(loads(body))


def _without_halves(body: bytes) -> bytes | None:
    r"""The body with `\ufffd` for each half of a surrogate pair; None if it has none, or more than MAX_HALVES."""
    whole = body.replace(rb"\\", rb"\u005c")  # the same character: every backslash that is left begins an escape
    halves = sum(1 for _ in islice(_HALF.finditer(whole), MAX_HALVES + 1))
    return _HALF.sub(rb"\\ufffd", whole) if 0 < halves <= MAX_HALVES else None
