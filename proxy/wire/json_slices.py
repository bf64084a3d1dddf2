"""JSON of any size: what is large is written a slice at a time, so that other tasks do not wait for it.

2048 vectors of 2048 floats are 80 MB of JSON: written at once they block the loop for a third of a second.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np
import orjson

LARGE_FLOATS = 64 * 2048  # floats: about 1.6 MB of JSON, 3 ms
SLICE_FLOATS = 16 * 2048  # about a millisecond in all
CHARACTERS_PER_FLOAT = 16  # base64 is only copied, which takes a sixteenth of the time or less

Rows = Sequence[object]


async def json_parts(value: object) -> AsyncIterator[bytes]:
    """The value as JSON, in one part or in slices; numpy arrays become lists of numbers."""
    large: dict[str, Rows] = {}
    skeleton = without_large(value, large)
    async for part in slices(skeleton, large):
        yield part


async def slices(skeleton: object, large: Mapping[str, Rows]) -> AsyncIterator[bytes]:
    """The JSON of `skeleton`, its placeholders replaced by the rows of `large`, in parts of about a millisecond each.

    Other tasks of the loop run between two parts.
    """
    for part in _pieces(skeleton, large):
        yield part
        if large:
            await asyncio.sleep(0)


def json_pieces(value: object) -> Iterator[bytes]:
    """The same as `json_parts`, for a thread."""
    large: dict[str, Rows] = {}
    skeleton = without_large(value, large)
    yield from _pieces(skeleton, large)


def _pieces(skeleton: object, large: Mapping[str, Rows]) -> Iterator[bytes]:
    rest = plain_json(skeleton)
    for name, rows in large.items():
        before, rest = rest.split(plain_json(name), 1)
        yield before + b"["
        for slice_ in _sliced(rows):
            end = b"," if slice_.stop < len(rows) else b""
            if slice_.stop - slice_.start > 1:
                yield plain_json(rows[slice_])[1:-1] + end
            else:
                yield from json_pieces(rows[slice_.start])
                yield end
        rest = b"]" + rest
    yield rest


def without_large(value: object, large: dict[str, Rows]) -> object:
    """The value, in which a unique placeholder replaces each list of more than LARGE_FLOATS; `large` gets the list."""
    if isinstance(value, list) and any(floats > LARGE_FLOATS for floats in accumulate(map(_floats, value))):
        name = uuid.uuid4().hex
        large[name] = value
        return name
    if isinstance(value, dict):
        return {key: without_large(inner, large) for key, inner in value.items()}
    return value


def _sliced(rows: Rows) -> Iterator[slice]:
    """Slices of rows with about SLICE_FLOATS together, or of one row that has more."""
    start = floats = 0
    for row, here in enumerate(map(_floats, rows)):
        if row > start and floats + here > SLICE_FLOATS:
            yield slice(start, row)
            start, floats = row, 0
        floats += here
    yield slice(start, len(rows))


def _floats(value: object) -> int:
    """Roughly how many floats take as long to write."""
    match value:
        case np.ndarray():
            return value.size
        case str():
            return 1 + len(value) // CHARACTERS_PER_FLOAT
        case dict():
            return sum(map(_floats, value.values()))
        case [int(), *_]:
            return len(value)
        case list():
            return sum(map(_floats, value))
        case _:
            return 1


def plain_json(value: object) -> bytes:
    """The value as JSON at once: for what is not large."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
