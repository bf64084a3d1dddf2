"""`trillama embed`: one request to the running server, or to one started for it."""

import asyncio
import io
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import aiohttp
import numpy as np
import orjson
import typer

from launcher.errors import ArgumentError, LauncherError
from launcher.fleet.address import given_url
from launcher.fleet.temporary import authorization, refusal_class, refusal_reason, served
from launcher.printable import Terminal, stderr, stdout
from launcher.settings.config import Settings
from launcher.supervision.probes import why_no_answer
from launcher.terminal.given_images import given_images
from launcher.terminal.given_texts import given_texts
from launcher.terminal.options import EXIT_CODES, ApiKey, ConfigFile, Demo, Port, Tiny, Url, settings_of
from launcher.terminal.signals import until_signal

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


class Format(StrEnum):
    JSON = "json"
    NPY = "npy"


embed_app = typer.Typer()


@embed_app.command("embed", epilog=EXIT_CODES)
def embed(
    text: Annotated[list[str] | None, typer.Argument(help="The texts; - is standard input, a text per line.")] = None,
    file: Annotated[list[Path] | None, typer.Option("--file", help="A text per line; may be repeated.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|URL", help="An image or a PDF; the server fetches URLs. May be repeated."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="One that the family has [default: the family's].")] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Keep only the first N dimensions.")] = None,
    format: Annotated[Format, typer.Option(help="json: the API's response; npy: a float32 NumPy file.")] = Format.JSON,  # noqa: A002
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    url: Url = None,
    port: Port = None,
    api_key: ApiKey = None,
) -> None:
    """Embed texts and images with a running server, or start one. Images come after the texts."""
    if format is Format.NPY and sys.stdout.isatty():
        raise ArgumentError("--format npy writes binary data, and standard output is a terminal: add > vectors.npy")
    address = given_url(url, port)
    texts = given_texts(text or [], file or [], sys.stdin) if text or file or not image else ()
    call = EmbedCall(texts=texts, images=tuple(image or ()), task=task, dimensions=dimensions)
    settings = settings_of(config, demo=demo, tiny=tiny, images=bool(image))
    session = run_embed(settings, call, url=address, api_key=api_key, err=stderr)
    answer = asyncio.run(until_signal(session))
    if answer is None:
        raise typer.Exit(130)
    if format is Format.NPY:
        sys.stdout.buffer.write(answer.npy())
    elif sys.stdout.isatty():
        stdout.say(answer.body.decode(errors="replace"))
    else:
        sys.stdout.buffer.write(answer.body + b"\n")


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
        raise refusal_class(response.status)(f"{url} refused: {_with_names(refusal_reason(body), call)}")
    return EmbedAnswer(body)


def _with_names(detail: str, call: EmbedCall) -> str:
    """The server's message, in which an image has the name that the user gave it instead of its index."""

    def name(found: re.Match[str]) -> str:
        at = int(found[1]) - len(call.texts)
        return f"--image {call.images[at][:_MAX_NAME]}" if 0 <= at < len(call.images) else found[0]

    return re.sub(r"\binput\.(\d+)", name, detail)
