"""JSON responses of any size, and what they say about the vectors in them."""

import json
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import web

from proxy.types import EmbedResult, ServiceLoad
from proxy.wire.json_slices import Rows, plain_json, slices, without_large

PROVENANCE = {
    "X-Trillama-Model": "The family that made the vectors.",
    "X-Trillama-Task": "The task as served.",
    "X-Trillama-Prefix": "The prefix as served, as JSON; with `{instruction}` for the request's own.",
    "X-Trillama-Model-Digest": "The model file's SHA-256.",
    "X-Trillama-Quantization": "The model file's quantisation.",
    "X-Trillama-Engine": "The build of llama.cpp.",
    "X-Trillama-Pooling": "How the states of a text's tokens became its vector.",
    "X-Trillama-Vector-Space": "Vectors can be compared if and only if this is the same.",
    "X-Trillama-Image-Space": "The same for the vectors of images, if there are any among the inputs.",
    "X-Queue-Tokens": "The tokens that wait on this server now.",
    "X-Tokens-Per-Second": "How many tokens this server computes in a second; 0.0: unknown.",
}


async def send(
    request: web.Request, body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Respond with `body` as JSON; numpy arrays become lists of numbers."""
    large: dict[str, Rows] = {}
    skeleton = without_large(body, large)
    if not large:
        return web.Response(body=plain_json(body), status=status, headers=headers, content_type="application/json")
    response = web.StreamResponse(status=status, headers=headers)
    response.content_type = "application/json"
    with suppress(ConnectionError):  # the client has disconnected
        await response.prepare(request)
        if request.method == "HEAD":  # aiohttp would send what is written all the same
            return response
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
        **({"X-Trillama-Image-Space": result.provenance.image_space} if result.provenance.image_space else {}),
    }


def load_headers(load: ServiceLoad) -> dict[str, str]:
    """The response headers by which a Front, or any balancer, compares servers."""
    return {"X-Queue-Tokens": str(load.queue_tokens), "X-Tokens-Per-Second": f"{load.tokens_per_s:.1f}"}
