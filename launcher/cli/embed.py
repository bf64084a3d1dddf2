"""`trillama embed`: one request to the running server, or to one started for it."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp
import numpy as np
import orjson

from launcher.errors import LauncherError
from launcher.fleet.temporary import authorization, refusal, refusal_reason, served
from launcher.printable import Terminal
from launcher.settings.config import Settings
from launcher.supervision.probes import why_no_answer
from launcher.terminal.given_images import given_images

_MAX_NAME = 200  # characters; the name of a data URI is its data


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """`images` are files and URLs, embedded after the texts; a PDF is alone."""

    texts: tuple[str, ...]
    images: tuple[str, ...]
    task: str | None
    dimensions: int | None


@dataclass(frozen=True, slots=True)
class EmbedAnswer:
    """The body of the API's response, JSON."""

    body: bytes

    def npy(self) -> bytes:
        """The vectors as a NumPy file: float32, shape (n, dimensions)."""
        file = io.BytesIO()
        try:
            rows = [row["embedding"] for row in orjson.loads(self.body)["data"]]
            np.save(file, np.array(rows, dtype=np.float32))
        except (ValueError, KeyError, TypeError) as error:
            raise LauncherError("what answered is not a trillama: its answer has no vectors; check --url") from error
        return file.getvalue()


async def run_embed(
    settings: Settings, call: EmbedCall, *, url: str | None, api_key: str | None, err: Terminal
) -> EmbedAnswer:
    """Send the call. Raises LauncherError with the server's own message if it is rejected."""
    headers = authorization(settings.host, api_key)
    inputs: list[str | dict[str, str]] = [*call.texts, *given_images(call.images, len(call.texts))]
    return await served(settings, call.task, partial(_ask, headers, call, inputs), url=url, err=err)


async def _ask(
    authorized: Mapping[str, str], call: EmbedCall, inputs: Sequence[str | dict[str, str]], url: str
) -> EmbedAnswer:
    request = {"input": inputs, "task": call.task, "dimensions": call.dimensions}
    headers = {"Content-Type": "application/json", **authorized}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(f"{url}/v1/embeddings", data=orjson.dumps(request), headers=headers) as response,
        ):
            body = await response.read()
    except aiohttp.ClientError as error:
        raise LauncherError(f"{url} {why_no_answer(error)}") from error
    if response.status != 200:
        raise refusal(response.status)(f"{url} refused: {_with_names(refusal_reason(body), call)}")
    return EmbedAnswer(body)


def _with_names(detail: str, call: EmbedCall) -> str:
    """The server's message, in which an image has the name that the user gave it instead of its index."""

    def name(found: re.Match[str]) -> str:
        at = int(found[1]) - len(call.texts)
        return f"--image {call.images[at][:_MAX_NAME]}" if 0 <= at < len(call.images) else found[0]

    return re.sub(r"\binput\.(\d+)", name, detail)
