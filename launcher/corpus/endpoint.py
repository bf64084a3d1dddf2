"""The server that embeds, any with Jina's embeddings API, and what its answers mean for a call of a bulk job."""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import numpy as np
import orjson
import pybase64

from launcher.arrays import F32
from launcher.corpus.plan import JobOptions, SpaceFound
from launcher.errors import ArgumentError, SpaceChanged
from launcher.supervision.probes import why_no_answer
from proxy.bulk.runner import CallFailed, CallRefused, RowError, ServerBusy
from proxy.contract.admin import LANE_HEADER

_RAW = "application/octet-stream"
_TIMEOUT = aiohttp.ClientTimeout(total=900, sock_connect=10)
_WORDS = 300  # characters of a server's message
_PLACE_IN_CALL = re.compile(r"^input \d+ has ")  # in trillama's messages: the error row has the row's own number


class NotReached(ServerBusy):
    """No connection, or none until the answer was there."""


class NoSuchPath(ArgumentError):
    """The server has no such API."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A 200: its headers, and its body as raw floats or JSON."""

    headers: Mapping[str, str]
    raw: bool
    body: bytes


@dataclass(slots=True, kw_only=True)
class EmbeddingEndpoint:
    """`space` is what every answer must be of, once it is set."""

    session: aiohttp.ClientSession
    url: str
    options: JobOptions
    space: SpaceFound | None = None
    texts: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)

    async def embed(self, texts: Sequence[str]) -> Sequence[F32 | RowError]:
        """One call. Raises what `proxy.bulk.runner` says, and LauncherError for what another try cannot change."""
        try:
            answer = await self._post(texts, raw=True)
        except CallRefused:
            if len(texts) == 1:
                raise
            answer = await self._post(texts, raw=False)  # raw floats are all or nothing; JSON says which text it is
        rows, tokens = _rows(answer, len(texts))
        self._check(answer, rows)
        self.texts += len(texts)
        self.tokens += tokens
        return rows

    async def healthy(self) -> bool:
        """Whether it embeds a short text: then calls that fail do so because of their texts."""
        try:
            await self.find_space()
        except (ServerBusy, CallFailed, CallRefused):
            return False
        return True

    async def find_space(self) -> SpaceFound:
        """What the server says of its vectors. Raises as `embed` does."""
        answer = await self._post(("trillama corpus",), raw=False)
        (row,), _ = _rows(answer, 1)
        if isinstance(row, RowError):
            raise CallRefused(row.code, row.message)
        return _space(answer, len(row))

    async def count_tokens(self, texts: Sequence[str]) -> int | None:
        """How many tokens they have, prefixes included; None where the server cannot count them. Raises as `embed`."""
        try:
            answer = await self._post(texts, raw=False, path="/v1/embeddings/count_tokens")
        except NoSuchPath:
            return None
        return int(orjson.loads(answer.body)["input_tokens"])

    async def _post(self, texts: Sequence[str], *, raw: bool, path: str = "/v1/embeddings") -> Answered:
        body = {
            "input": texts,
            "task": self.options.task,
            "model": self.options.model,
            "dimensions": self.options.dimensions,
            "truncate": self.options.truncate or None,
            "embedding_type": "base64",
            "on_error": "partial",
        }
        data = orjson.dumps({name: value for name, value in body.items() if value is not None})
        accept = f"{_RAW}, application/json;q=0.5" if raw else "application/json"
        headers = {"Content-Type": "application/json", "Accept": accept, "Accept-Encoding": "identity"}
        headers[LANE_HEADER] = "bulk"
        try:
            async with self.session.post(self.url + path, data=data, headers=headers) as response:
                content = await response.read()
        except TimeoutError as error:
            raise CallFailed("timeout", f"no answer within {_TIMEOUT.total:.0f} s", full=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NotReached(why_no_answer(error)) from error
        if response.status != 200:
            raise _refusal(self.url, response.status, response.headers, content)
        return Answered(response.headers, response.content_type == _RAW, content)

    def _check(self, answer: Answered, rows: Sequence[F32 | RowError]) -> None:
        if self.space is None:
            return
        vectors = [row for row in rows if not isinstance(row, RowError)]
        found = answer.headers.get("X-Trillama-Vector-Space", "")
        if found != self.space.id:
            raise SpaceChanged(f"the server's vector space is now {found or 'unknown'}, this job's is {self.space.id}")
        if any(len(vector) != self.space.dimensions for vector in vectors):
            raise SpaceChanged(f"the server's vectors no longer have {self.space.dimensions} dimensions")


@asynccontextmanager
async def embedding_endpoint(
    url: str, headers: Mapping[str, str], options: JobOptions
) -> AsyncIterator[EmbeddingEndpoint]:
    """The endpoint at that URL, for the block."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, headers=headers) as session:
        yield EmbeddingEndpoint(session=session, url=url, options=options)


def _refusal(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """What a status other than 200 means for the call."""
    code, message = _fault(status, body)
    match status:
        case 408 | 425 | 429 | 503:
            return ServerBusy(message, retry_after_s=_seconds(headers.get("Retry-After")), full=status == 429)
        case 400 | 413 | 422:
            return CallRefused(code, message)
        case _ if status >= 500:
            return CallFailed(code, message, full=status == 504)
    return (NoSuchPath if status in (404, 405) else ArgumentError)(f"{url} refused: {message}")


def _fault(status: int, body: bytes) -> tuple[str, str]:
    """The code and the message in an error's body, of trillama or of OpenAI's kind."""
    code, message = f"http_{status}", body[:_WORDS].decode(errors="replace")
    try:
        found = orjson.loads(body)
        inner = found.get("error")
        error = inner if isinstance(inner, dict) else {}
        code = str(found.get("code") or error.get("code") or code)
        message = str(found.get("detail") or error.get("message") or message)
    except (orjson.JSONDecodeError, AttributeError):
        pass
    return code, message[:_WORDS] or f"HTTP {status}"


def _seconds(retry_after: str | None) -> float | None:
    """The header's seconds; None for a date, or without it."""
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        return None


def _rows(answer: Answered, expected: int) -> tuple[list[F32 | RowError], int]:
    """A vector or an error for each text, and the tokens computed. Raises CallFailed."""
    try:
        rows, tokens = _raw_rows(answer) if answer.raw else _json_rows(answer.body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CallFailed("wrong_answer", f"the answer is not one of an embeddings API: {error!r}") from error
    if len(rows) != expected:
        raise CallFailed("wrong_answer", f"the server answered {len(rows)} vectors for {expected} texts")
    checked = [
        row
        if isinstance(row, RowError) or np.isfinite(row).all()
        else RowError("not_finite", "its vector is not finite")
        for row in rows
    ]
    return checked, tokens


def _raw_rows(answer: Answered) -> tuple[list[F32 | RowError], int]:
    count, dimensions = map(int, answer.headers["X-Embedding-Shape"].split(","))
    matrix = np.frombuffer(answer.body, dtype="<f4").reshape(count, dimensions)
    return list(matrix), int(answer.headers.get("X-Usage-Tokens", 0))


def _json_rows(body: bytes) -> tuple[list[F32 | RowError], int]:
    answer = orjson.loads(body)
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    usage = answer.get("usage") or {}
    return [_json_row(row) for row in rows], int(usage.get("total_tokens") or 0)


def _json_row(row: Mapping[str, object]) -> F32 | RowError:
    error, vector = row.get("error"), row.get("embedding")
    if isinstance(error, dict):
        message = _PLACE_IN_CALL.sub("it has ", str(error.get("message")))
        return RowError(str(error.get("code")), message[:_WORDS])
    if isinstance(vector, str):
        return np.frombuffer(pybase64.b64decode(vector), dtype="<f4")
    return np.asarray(vector, dtype=np.float32)


def _space(answer: Answered, dimensions: int) -> SpaceFound:
    def header(name: str) -> str:
        return answer.headers.get(f"X-Trillama-{name}", "")

    return SpaceFound(
        id=header("Vector-Space"),
        model=header("Model") or str(orjson.loads(answer.body).get("model", "")),
        task=header("Task"),
        prefix=json.loads(header("Prefix") or '""'),
        digest=header("Model-Digest"),
        quantization=header("Quantization"),
        dimensions=dimensions,
    )
