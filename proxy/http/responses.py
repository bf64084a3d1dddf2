"""JSON responses of any size: large ones are written a slice at a time, so that other requests do not wait for them.

2048 vectors of 2048 floats are 80 MB of JSON: written at once they block the loop for a third of a second.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate

import numpy as np
import orjson
from aiohttp import web

from proxy.types import EmbedResult, ServiceLoad

LARGE_FLOATS = 64 * 2048  # floats: about 1.6 MB of JSON, 3 ms
SLICE_FLOATS = 16 * 2048  # about a millisecond in all
CHARACTERS_PER_FLOAT = 16  # base64 is only copied, which takes a sixteenth of the time or less

Rows = Sequence[object]


async def send(
    request: web.Request, body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Respond with `body` as JSON; numpy arrays become lists of numbers."""
    large: dict[str, Rows] = {}
    skeleton = _without_large(body, large)
    if not large:
        return web.Response(body=_json(body), status=status, headers=headers, content_type="application/json")
    response = web.StreamResponse(status=status, headers=headers)
    response.content_type = "application/json"
    with suppress(ConnectionError):  # the client has disconnected
        await response.prepare(request)
        async for part in slices(skeleton, large):
            await response.write(part)
        await response.write_eof()
    return response


def provenance_headers(result: EmbedResult) -> dict[str, str]:
    """The response headers that say what served a request. The prefix is JSON, because its last space matters."""
    return {
        "X-Trillama-Model": result.model,
        "X-Trillama-Task": result.task,
        "X-Trillama-Prefix": json.dumps(result.prefix),
        "X-Trillama-Model-Digest": result.provenance.digest,
        "X-Trillama-Quantization": result.provenance.quantization,
        "X-Trillama-Engine": result.provenance.engine,
        "X-Trillama-Pooling": result.provenance.pooling,
        "X-Trillama-Vector-Space": result.provenance.space,
    }


def load_headers(load: ServiceLoad) -> dict[str, str]:
    """The response headers by which a Front, or any balancer, compares servers."""
    return {"X-Queue-Tokens": str(load.queue_tokens), "X-Tokens-Per-Second": f"{load.tokens_per_s:.1f}"}


async def slices(skeleton: object, large: Mapping[str, Rows]) -> AsyncIterator[bytes]:
    """The JSON of `skeleton`, its placeholders replaced by the rows of `large`, in parts of about a millisecond each.

    Other tasks of the loop run between two parts.
    """
    rest = _json(skeleton)
    for name, rows in large.items():
        before, rest = rest.split(_json(name), 1)
        yield before + b"["
        for slice_ in _sliced(rows):
            end = b"," if slice_.stop < len(rows) else b""
            if slice_.stop - slice_.start > 1:
                yield _json(rows[slice_])[1:-1] + end
            else:
                async for part in _row(rows[slice_.start]):
                    yield part
                yield end
            await asyncio.sleep(0)
        rest = b"]" + rest
    yield rest


async def _row(row: object) -> AsyncIterator[bytes]:
    """One row, which may be large itself: all vectors of a long text."""
    large: dict[str, Rows] = {}
    skeleton = _without_large(row, large)
    async for part in slices(skeleton, large):
        yield part


def _without_large(value: object, large: dict[str, Rows]) -> object:
    """The value, in which a unique placeholder replaces each list of more than LARGE_FLOATS; `large` gets the list."""
    if isinstance(value, list) and any(floats > LARGE_FLOATS for floats in accumulate(map(_floats, value))):
        name = uuid.uuid4().hex
        large[name] = value
        return name
    if isinstance(value, dict):
        return {key: _without_large(inner, large) for key, inner in value.items()}
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


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
