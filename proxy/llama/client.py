"""The client of one llama-server: its HTTP API, and its errors translated to ours."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from proxy.contract.settings import BackendSettings
from proxy.errors import BackendError, BackendLoading, BackendLost, BackendUnavailable
from proxy.llama.batch_lock import BatchLock
from proxy.llama.connection_fault import connection_fault
from proxy.llama.unix_http import NeedsFullClient, NotListening, Reply, UnixHttpClient
from proxy.types import Ids, Matrix, ModelSize

# llama-server closes an idle connection after 5 s; ours must be closed before (one reset in 300 seen otherwise).
_KEEPALIVE_S = 3.0
_RETRY_AFTER_S = 2
RAW_BASE64 = b'"encoding_format":"base64","embd_normalize":-1}'
QUICK = aiohttp.ClientTimeout(total=2)  # for what the server answers while a batch runs


@dataclass(frozen=True, slots=True)
class LlamaClient:
    """A llama-server with `--embedding` and the family's `--pooling`. A method raises BackendError or a subclass."""

    name: str
    settings: BackendSettings
    session: aiohttp.ClientSession
    base: str
    unix: UnixHttpClient | None = None
    lock: AbstractAsyncContextManager[object, bool | None] = field(default_factory=nullcontext)

    async def embed(self, inputs: Sequence[Ids]) -> Matrix:
        """The raw pooled vectors of token-id inputs, in their order: float32, shape (n, n_embd), not normalised.

        Send only what fits one physical batch: at most `slots` inputs and `batch_tokens` tokens (traps T2, T4, T9).
        Values are not checked: they may be NaN.
        """
        return self.read(
            await self.send([orjson.dumps(ids, option=orjson.OPT_SERIALIZE_NUMPY) for ids in inputs]), len(inputs)
        )

    async def send(self, texts: Sequence[bytes], *, once: bool = False) -> bytes:
        """Send one batch of texts, each a JSON list of token ids; `read` reads the answer.

        Raises BackendLost if the batch may have ended the engine, so that the caller can find out. It was sent twice
        then, unless `once`: the connection may have been stale.
        """
        post = self._post_once if once else self._post
        async with self.lock:
            return await post("/v1/embeddings", b'{"input":[%b],%b' % (b",".join(texts), RAW_BASE64))

    def read(self, answer: bytes, count: int) -> Matrix:
        """The vectors in the answer to a batch of `count` texts; see `embed`. Raises BackendError."""
        try:
            return _matrix(orjson.loads(answer), count)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BackendError(f"backend {self.name} answered something that is not embeddings: {error!r}") from error

    async def tokenize(self, text: str) -> NDArray[np.int32]:
        """The ids of one text as /v1/embeddings itself would compute them: special tokens parsed, BOS and EOS added."""
        body = orjson.dumps({"content": text, "add_special": True, "parse_special": True})
        answer = await self._post("/tokenize", body)
        try:
            return np.array(orjson.loads(answer)["tokens"], dtype=np.int32)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BackendError(f"backend {self.name} answered something that is not tokens: {error!r}") from error

    async def properties(self) -> dict[str, str]:
        """`build_info`, `model_ftype` and `n_ctx`, a text's longest, as /props has them; missing ones are absent."""
        async with self._translated(), self.session.get(f"{self.base}/props", timeout=QUICK) as response:
            content = await response.read()
            await self._raise_for(response.status, content)
        try:
            answer = orjson.loads(content)
            answer |= answer.get("default_generation_settings") or {}
            found = {name: str(answer[name]) for name in ("build_info", "model_ftype", "n_ctx") if name in answer}
            return {name: value.removeprefix("(guessed) ") for name, value in found.items()}
        except (orjson.JSONDecodeError, TypeError) as error:
            raise BackendError(f"backend {self.name} answered /props with something that is not JSON") from error

    async def size(self) -> ModelSize:
        """How large its model is, as the engine reports it in /v1/models; 0 if it does not."""
        async with self._translated(), self.session.get(f"{self.base}/v1/models", timeout=QUICK) as response:
            content = await response.read()
        try:
            meta = orjson.loads(content)["data"][0]["meta"]
            return ModelSize(parameters=int(meta["n_params"]), bytes=int(meta["size"]))
        except (KeyError, TypeError, ValueError, IndexError):  # used only in lists of models
            return ModelSize()

    async def check(self) -> None:
        """Return if it answers /health with 200; raise BackendLoading or another BackendError if not."""
        async with self._translated(), self.session.get(f"{self.base}/health", timeout=QUICK) as response:
            await self._raise_for(response.status, await response.read())

    async def _post(self, path: str, data: bytes) -> bytes:
        try:
            return await self._post_once(path, data)
        except BackendLost as error:
            # It closed a kept-alive connection as we wrote; embedding is pure, so sending again is safe.
            if not isinstance(error.__cause__, aiohttp.ServerDisconnectedError | ConnectionResetError):
                raise
            return await self._post_again(path, data, error)

    async def _post_again(self, path: str, data: bytes, lost: BackendLost) -> bytes:
        try:
            return await self._post_once(path, data)
        except BackendUnavailable as error:
            raise lost from error  # it is gone: what it did not answer may have ended it

    async def _post_once(self, path: str, data: bytes) -> bytes:
        if self.unix and (reply := await self._post_unix(self.unix, path, data)):
            await self._raise_for(reply.status, reply.content)
            return reply.content
        async with self._translated(), self.session.post(self.base + path, data=data) as response:
            content = await response.read()
            await self._raise_for(response.status, content)
            return content

    async def _post_unix(self, unix: UnixHttpClient, path: str, data: bytes) -> Reply | None:
        """The answer over the UNIX socket; None if it needs a full HTTP client."""
        try:
            return await unix.post(path, data)
        except NeedsFullClient:
            return None
        except NotListening as error:
            raise self._down(error, BackendUnavailable) from error
        except OSError as error:
            raise self._down(error, BackendLost) from error

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise self._down(error, BackendUnavailable) from error
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise self._down(error, BackendLost) from error

    @property
    def remedy(self) -> str:
        """What an operator can do if it is down, for the log: clients must not learn the address. Empty if supervised.

        The launcher restarts those on UNIX sockets by itself.
        """
        url = urlsplit(self.settings.url)
        address = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
        fix = f"start a llama-server at {address}, or correct [backends.{self.name}] url"
        return "" if url.scheme == "unix" else fix

    def _down(self, error: Exception, kind: type[BackendUnavailable]) -> BackendUnavailable:
        return kind(f"backend {self.name} is down: {connection_fault(error)}", retry_after_s=_RETRY_AFTER_S)

    async def _raise_for(self, status: int, content: bytes) -> None:
        if status == 200:
            return
        if status == 503:
            raise BackendLoading(f"backend {self.name} is loading its model", retry_after_s=_RETRY_AFTER_S)
        raise BackendError(f"backend {self.name} answered {status}: {content[:200].decode(errors='replace')}")


B = TypeVar("B", bound=LlamaClient)


@asynccontextmanager
async def connect(kind: type[B], name: str, settings: BackendSettings) -> AsyncIterator[B]:
    """A client of that kind for the block; the backend need not be up yet."""
    url = urlsplit(settings.url)
    connector: aiohttp.BaseConnector
    if url.scheme == "unix":
        connector, base = (
            aiohttp.UnixConnector(url.path, limit=8, keepalive_timeout=_KEEPALIVE_S),
            "http://llama-server",
        )
    else:
        connector, base = aiohttp.TCPConnector(limit=8, keepalive_timeout=_KEEPALIVE_S), settings.url.rstrip("/")
    headers = {"Content-Type": "application/json"}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    # No timeout for a batch here: the dispatcher has one.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        with ExitStack() as stack:
            unix = stack.enter_context(closing(_unix_client(url.path, headers))) if url.scheme == "unix" else None
            lock = stack.enter_context(closing(BatchLock(settings.lock))) if settings.lock else nullcontext()
            yield kind(name, settings, session, base, unix, lock)


def _unix_client(socket: str, headers: Mapping[str, str]) -> UnixHttpClient:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return UnixHttpClient(socket, headers=lines.encode("latin-1"), keepalive_s=_KEEPALIVE_S)


def _matrix(answer: object, count: int) -> Matrix:
    """Rows by their `index`. Raises ValueError and the like if the answer is not `count` rows of one length."""
    data = answer["data"]  # type: ignore[index] # the caller translates what another shape raises
    rows: list[bytes | None] = [None] * count
    for item in data:
        rows[item["index"]] = pybase64.b64decode(item["embedding"], validate=True)
    if len(data) != count or any(row is None for row in rows):
        raise ValueError(f"{len(data)} rows for {count} inputs")
    joined = b"".join(row for row in rows if row is not None)
    if len({len(row) for row in rows if row is not None}) != 1:
        raise ValueError("rows of different lengths")
    return np.frombuffer(joined, dtype="<f4").reshape(count, -1)
