"""The vectors as a float32 matrix, for clients that embed in bulk: no JSON to write, none to parse."""

import io
from collections.abc import Mapping

import numpy as np
from aiohttp import web

from proxy.http.negotiation import preferred
from proxy.types import EmbedResult

_JSON, RAW, NPY = "application/json", "application/octet-stream", "application/x-npy"


def preferred_type(accept: str) -> str | None:
    """The raw type that an Accept header prefers; None where it prefers JSON, or has no preference."""
    best = preferred(accept, (_JSON, RAW, NPY))
    return None if best == _JSON else best


def response(kind: str, result: EmbedResult, headers: Mapping[str, str]) -> web.Response:
    """Little-endian float32, row by row, bare or as a .npy file; shape and tokens are in the headers."""
    vectors = result.vectors.astype("<f4", copy=False)
    rows, dimensions = vectors.shape
    about = {"X-Embedding-Shape": f"{rows},{dimensions}", "X-Usage-Tokens": str(result.tokens)}
    if kind == RAW:
        body = vectors.tobytes()
    else:
        file = io.BytesIO()
        np.save(file, vectors)
        body = file.getvalue()
    return web.Response(body=body, content_type=kind, headers={**headers, **about})
