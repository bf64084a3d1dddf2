"""The whole use case of a Front: a request of any dialect in, the nodes' vectors out, all of them or none."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from proxy.contract.family import Family
from proxy.contract.front import FrontSettings
from proxy.embedding.tasks import Route, TaskTable
from proxy.errors import BackendUnavailable, BadRequest, DeadlineExceeded, ProxyError
from proxy.faults import PoisonedInput
from proxy.front.choice import at_once
from proxy.front.fleet import NodeFleet
from proxy.front.node_api import reindexed
from proxy.front.pieces import MixedSpaces, Piece, PieceRules, cut_pieces, merge, whole
from proxy.front.send import PieceOrder, count_piece, send_piece
from proxy.front.spaces import UNKNOWN_SPACE
from proxy.types import EmbedRequest, EmbedResult, Provenance, ReadyReport, ServedLimits, ServiceLoad, client_of

log = logging.getLogger(__name__)


@asynccontextmanager
async def front_service(settings: FrontSettings, family: Family) -> AsyncIterator["FrontService"]:
    """Serve requests by the nodes in `settings` for the duration of the block."""
    async with asyncio.TaskGroup() as tasks:
        fleet = NodeFleet(settings, family, tasks)
        try:
            yield FrontService(settings, family, fleet)
        finally:
            fleet.stop_watching()


class FrontService:
    """As `EmbedService`, but computes nothing. A request that no node could compute gets the error of one node."""

    def __init__(self, settings: FrontSettings, family: Family, fleet: NodeFleet) -> None:
        self.tasks = TaskTable(family, default_task=settings.default_task, model_aliases=settings.model_aliases)
        self.nodes = fleet
        self._settings, self._family = settings, family
        self._rules = PieceRules(texts=settings.piece_texts, bytes=settings.piece_bytes)
        self._keys = {client_of(key): key for key in settings.api_keys}

    @property
    def limits(self) -> ServedLimits:
        models = self.nodes.models
        return ServedLimits(
            items=self._settings.max_items,
            input_tokens=models.input_tokens if models else self._family.max_input_tokens,
            dimensions=self._family.dimensions,
            seconds=self._settings.request_timeout_s,
        )

    @property
    def notice(self) -> str:
        models = self.nodes.models
        return models.notice if models else ""

    @property
    def multivector_served(self) -> bool:
        """Whether nodes can serve them: the document is written before any node is asked."""
        return self._family.multivector is not None

    @property
    def images_served(self) -> bool:
        """Nodes may, and refuse them by name if they do not."""
        return True

    def provenance(self, backend: str) -> Provenance:
        models = self.nodes.models
        if models and backend in models.provenance:
            return models.provenance[backend]
        pooling = self._family.weights.pooling
        unknown = UNKNOWN_SPACE
        return Provenance(digest=unknown, quantization=unknown, engine=unknown, pooling=pooling, space=unknown)

    def is_loaded(self, backend: str) -> bool:
        return bool(self.nodes.serving(backend))

    def load(self) -> ServiceLoad:
        load = self.nodes.load()
        return ServiceLoad(queue_tokens=load.queued_tokens, tokens_per_s=load.tokens_per_s)

    async def readiness(self) -> ReadyReport:
        """Ready if one node is. With API keys it names no node, as `/ready` needs none."""
        names = dict.fromkeys(row.backend for row in self._family.tasks.values())
        nodes, backends = self.nodes.states(), {name: self.nodes.state_of(name) for name in names}
        ready = sum(state == "ready" for state in nodes.values())
        if self._settings.api_keys:
            nodes = {"ready": str(ready), "not ready": str(len(nodes) - ready)}
            backends = {name: "ready" if one == "ready" else "no node serves it" for name, one in backends.items()}
        return ReadyReport(ready=ready > 0, backends=backends, nodes=nodes)

    def drain(self) -> None:
        """Reject requests that wait for a node; pieces in flight complete."""
        self.nodes.stop()

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """The vectors of all inputs, once all of them are there. Raises what `EmbedService.embed` raises."""
        async with self._ordered(request) as order:
            return await self._embedded(order)

    async def count_tokens(self, request: EmbedRequest) -> int:
        """The tokens of all inputs, as one node counts them. Raises what `embed` raises."""
        async with self._ordered(request) as order:
            return await count_piece(self.nodes, order, whole(request))

    @asynccontextmanager
    async def _ordered(self, request: EmbedRequest) -> AsyncIterator[PieceOrder]:
        """What the pieces of a request have in common; raises DeadlineExceeded if the block takes too long."""
        self.limits.check(request)
        row = self.tasks.route(request.model, request.task, request.role, default=request.default_task)
        row.prefix_with(request.instruction)
        seconds = min(self._settings.request_timeout_s, request.timeout_s or math.inf)
        try:
            async with asyncio.timeout(seconds) as clock:
                yield self._order(request, row, clock.when() or math.inf)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not done within {seconds:g} s", retry_after_s=5) from error

    def _order(self, request: EmbedRequest, row: Route, deadline: float) -> PieceOrder:
        return PieceOrder(
            request=request,
            task=row.task,
            backend=row.backend,
            dimensions=None if request.multivector else request.dimensions or self._family.dimensions,
            deadline=deadline,
            bulk=request.bulk,
            key=self._settings.node_api_key or self._keys.get(request.client),
        )

    async def _embedded(self, order: PieceOrder) -> EmbedResult:
        pieces = cut_pieces(order.request, self._rules)
        if len(pieces) == 1:
            return await send_piece(self.nodes, order, pieces[0], 0)
        order = replace(order, bulk=True)
        try:
            return await self._merged(order, pieces)
        except MixedSpaces:
            log.warning("%s: the nodes' vector space changed meanwhile: all of it again", order.request.request_id)
        try:
            return await self._merged(order, pieces)
        except MixedSpaces as error:
            raise BackendUnavailable("the vector space of the nodes is changing", retry_after_s=5) from error

    async def _merged(self, order: PieceOrder, pieces: Sequence[Piece]) -> EmbedResult:
        gathering = _Gathering(self.nodes, order)
        try:
            await gathering.gather(pieces)
        except PoisonedInput:
            raise
        except BadRequest:
            # One node sees all inputs, and names all those that are at fault, as it does without a Front.
            return await send_piece(self.nodes, order, whole(order.request), len(pieces))
        if not gathering.results:
            raise gathering.failed[min(gathering.failed)]
        return merge(gathering.results, gathering.failed)


class _Gathering:
    """The `results` of a request's pieces, each with the index of its first input; `failed`: inputs in none of them."""

    def __init__(self, fleet: NodeFleet, order: PieceOrder) -> None:
        self.results = list[tuple[int, EmbedResult]]()
        self.failed = dict[int, ProxyError]()
        self._fleet, self._order = fleet, order
        self._places = asyncio.Semaphore(at_once(len(fleet.serving(order.backend))))

    async def gather(self, pieces: Sequence[Piece]) -> None:
        """Send all pieces. Raises the error of the first that fails; the others are cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, piece in enumerate(pieces):
                    group.create_task(self._gather(number, piece))
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors

    async def _gather(self, number: int, piece: Piece) -> None:
        try:
            async with self._places:
                result = await send_piece(self._fleet, self._order, piece, number)
        except BadRequest as error:
            if not self._order.request.partial:
                raise reindexed(error, piece.first) from error
            await self._gather_singly(number, piece, error)
        else:
            self.results.append((piece.first, result))

    async def _gather_singly(self, number: int, piece: Piece, error: BadRequest) -> None:
        """Every input of the piece failed, and its error is that of the first: ask for the errors of the others."""
        first, *others = piece.singles()
        self.failed[first.first] = reindexed(error, piece.first)
        for single in others:
            await self._gather(number, single)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to answer with: of several poisoned inputs the first."""
    poisoned = [error for error in errors.exceptions if isinstance(error, PoisonedInput)]
    return min(poisoned, key=lambda error: error.index) if poisoned else errors.exceptions[0]
