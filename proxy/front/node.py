"""One node as a Front sees it: its client, its load, and whether it is up."""

import asyncio
import io
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

from proxy.contract.family import Family
from proxy.errors import BackendLost, BackendUnavailable
from proxy.front import node_state
from proxy.front.choice import NodeLoad, waiting_of_others
from proxy.front.node_api import NodeAnswer, whole_number
from proxy.front.node_state import READY, NodeModels, image_space
from proxy.front.spaces import Space
from proxy.llama.connection_fault import connection_fault

log = logging.getLogger(__name__)

_PROBE_S = 0.5
_PROBE_TIMEOUT_S = 1.0
_MISSES = 2  # in a row, until a node is down that neither refuses connections nor answers
_CONNECT_S = 1.0
_LARGE_BODY = 2**18  # bytes: of a document, or of a request that is sent whole


@dataclass(slots=True)
class NodeState:
    """`reason` says why the node is down, or must not be used; empty if it is up. `backends` as its `/ready` has them.

    `suspect`: a piece failed there, and no probe has succeeded since.
    """

    reason: str = "not asked yet"
    suspect: bool = False
    backends: Mapping[str, str] = field(default_factory=dict)
    spaces: Mapping[str, Space] = field(default_factory=dict)
    models: NodeModels | None = None
    others: int = 0
    tokens_per_s: float = 0.0
    restarts: int = -1  # the first time that it is up is none


class Node:
    """Sends pieces to one node and probes it. `changed` is called when it may serve, or may not any more."""

    def __init__(self, name: str, url: str, key: str | None, changed: Callable[["Node"], None]) -> None:
        self.name, self.url = name, url.rstrip("/")
        self.state = NodeState()
        self.in_flight = self.in_flight_tokens = 0
        self.leaving = False
        self._changed = changed
        self._key = key
        self._session = _session()
        self._misses = self._answers = self._doubts = 0
        self._shown: object = None
        self._scopes = set[asyncio.Timeout]()
        self._probe_now = asyncio.Event()

    @property
    def up(self) -> bool:
        return not self.state.reason and not self.state.suspect

    @property
    def ready(self) -> bool:
        """Whether it serves with all of its backends."""
        return self.up and all(state == READY for state in self.state.backends.values())

    def serves(self, backend: str) -> bool:
        return self.up and not self.leaving and self.state.backends.get(backend) == READY

    def takes_images(self, backend: str) -> bool:
        return image_space(backend) in self.state.spaces

    def why_not(self, backend: str | None = None) -> str:
        """Why it does not serve, with that backend or at all."""
        states = self.state.backends
        below = [states.get(backend, "not served")] if backend else states.values()
        return self.state.reason or next((state for state in below if state != READY), "it is being checked")

    def load(self) -> NodeLoad:
        return NodeLoad(in_flight=self.in_flight_tokens, others=self.state.others, tokens_per_s=self.state.tokens_per_s)

    async def ask(self, path: str, body: bytes, headers: Mapping[str, str], tokens: int) -> NodeAnswer:
        """Send a piece of about so many tokens. Raises BackendLost once it is known that no answer will come."""
        self.in_flight += 1
        self.in_flight_tokens += tokens
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                answer = await self._post(path, body, headers)
        except (aiohttp.ClientError, OSError) as error:
            self.doubt()
            raise BackendLost(f"node {self.name}: {connection_fault(error)}", retry_after_s=5) from error
        except TimeoutError as error:  # of the scope
            raise BackendLost(f"node {self.name} is down: {self.state.reason}", retry_after_s=5) from error
        finally:
            self._scopes.discard(scope)
            self.in_flight -= 1
            self.in_flight_tokens -= tokens
        self._answers += 1
        self._note_load(answer.headers)
        return answer

    def doubt(self) -> None:
        """Send it nothing until a probe, which starts now, has succeeded."""
        self.state.suspect = True
        self._doubts += 1
        self._probe_now.set()

    def refuse(self, reason: str) -> None:
        """Do not use it, for that reason, which its next good probe may remove."""
        self._enter(reason)

    async def watch(self, family: Family, refusal: Callable[["Node"], str | None]) -> None:
        """Probe it for as long as the task runs; `refusal` says why it must not be used although it is up."""
        try:
            while not (self.leaving and not self.in_flight):
                self._probe_now.clear()
                await self._probe(family, refusal)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PROBE_S):
                        await self._probe_now.wait()
        finally:
            await self._session.close()

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> NodeAnswer:
        async with self._session.post(
            self.url + path, data=_streamed(body), headers=headers, allow_redirects=False
        ) as response:
            return NodeAnswer(response.status, response.headers, await response.read())

    async def _probe(self, family: Family, refusal: Callable[["Node"], str | None]) -> None:
        answers, doubts = self._answers, self._doubts
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await self._read_state(family)
        except TimeoutError:
            # An answer to a piece is a sign of life, too: a busy node may be late with the probe's.
            self._misses = self._misses + 1 if answers == self._answers else 0
            if self._misses >= _MISSES:
                await self._go_down(f"no answer to {_MISSES} probes, of {_PROBE_TIMEOUT_S:g} s each")
        except (aiohttp.ClientError, OSError) as error:
            await self._go_down(connection_fault(error))
        except BackendUnavailable as error:
            self._misses = 0
            self._enter(error.message)
        else:
            self._misses = 0
            self.state.suspect = doubts != self._doubts
            self._enter(refusal(self) or "")

    async def _read_state(self, family: Family) -> None:
        """Ask how it is. Raises BackendUnavailable if that is not the answer of a node of this family."""
        status, headers, body = await self._get("/ready")
        said = node_state.read_ready(status, body)
        if self.state.models is None or said.spaces != self.state.spaces:
            status, _, models = await self._get("/v1/models")
            self.state.models = node_state.read_models(status, models, family)
        self.state.backends, self.state.spaces = said.backends, said.spaces
        self._note_load(headers)

    async def _get(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        async with self._session.get(self.url + path, headers=headers, allow_redirects=False) as response:
            return response.status, response.headers, await response.read()

    async def _go_down(self, reason: str) -> None:
        """Take it for down: what it has not answered is cancelled, and its connections are closed."""
        self._enter(reason)
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)
        self._scopes.clear()
        old, self._session = self._session, _session()
        await old.close()

    def _enter(self, reason: str) -> None:
        """Become up, or down for a reason."""
        if self.state.reason != reason:
            level = logging.WARNING if reason else logging.INFO
            log.log(level, "node %s (%s): %s", self.name, urlsplit(self.url).netloc, reason or "up")
            self.state.restarts += not reason
        self.state.reason = reason
        shown = (self.up, self.state.backends)
        if shown != self._shown:
            self._shown = shown
            self._changed(self)

    def _note_load(self, headers: Mapping[str, str]) -> None:
        queued = whole_number(headers.get("X-Queue-Tokens"))
        if queued is not None:
            self.state.others = waiting_of_others(queued, self.in_flight_tokens)
        with suppress(ValueError):
            self.state.tokens_per_s = max(0.0, float(headers.get("X-Tokens-Per-Second", "")))


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        skip_auto_headers=("User-Agent",),
    )


def _streamed(body: bytes) -> bytes | io.BytesIO:
    """The body as aiohttp sends it: a large one in parts, between which other requests are served."""
    return body if len(body) < _LARGE_BODY else io.BytesIO(body)
