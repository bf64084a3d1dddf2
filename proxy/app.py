"""The HTTP application around whatever computes the vectors, and its server; owns their lifetimes."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import orjson
from aiohttp import web

from proxy.console.console import Console
from proxy.contract.family import Family
from proxy.contract.front import FrontSettings
from proxy.contract.settings import EdgeOptions, ProxySettings
from proxy.dialects import jobs
from proxy.edge import admission, body, middleware
from proxy.edge.acceptor import Acceptor
from proxy.edge.connections import Connections, Deadlines
from proxy.edge.http_server import running_server
from proxy.edge.origins import Origins
from proxy.http import admin, openapi, pages, routes
from proxy.http.batches import setup
from proxy.http.console.api import CONSOLE
from proxy.http.service import EmbeddingService
from proxy.monitoring.scrape import Scrape
from proxy.process import open_files
from proxy.scheduling.memory_budget import MemoryBudget
from proxy.telemetry import observe
from proxy.telemetry.spans import tracing

log = logging.getLogger(__name__)

MIN_RATE = 16 * 2**10  # bytes a second: the slowest that a client may send or read without running out of time


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFamily:
    """What is served: `control` are the routes of the control socket beside those that every server has."""

    family: Family
    service: EmbeddingService
    scrape: Scrape
    control: Sequence[web.RouteDef] = ()
    admin_keys: tuple[str, ...] = ()
    console: Console | None = None


@asynccontextmanager
async def serving(
    config: ProxySettings | FrontSettings,
    served: ServedFamily,
    listener: socket.socket,
    *,
    stop: asyncio.Event,
    accepting: bool = True,
) -> AsyncIterator[None]:
    """Serve connections to `listener` for the duration of the block.

    Without `accepting` it accepts connections only after POST /accept on the control socket. POST /finish there makes
    it answer the requests it has and set `stop`. On exit, waiting requests get 503, what is in flight gets `drain_s` to
    finish, then the connections close.
    """
    name = "trillama-front" if isinstance(config, FrontSettings) else "trillama"
    running = jobs.running_jobs(served.service.embed, partial(_retry_after_s, served.service))
    async with tracing(name, os.environ) as tracer, running as job_store:
        app = _application(config, served, job_store)
        if tracer:
            app[observe.TRACER] = tracer
        app[admission.ORIGINS] = await _origins(config)
        async with running_server(app, _connections(config), config.drain_s) as runner:
            acceptor = Acceptor(app, runner, listener, stop=stop)
            try:
                async with (
                    admin.admin_server(config.control, served.control, acceptor),
                    asyncio.TaskGroup() as tasks,
                ):
                    if accepting:
                        await acceptor.accept()
                    until_end = [tasks.create_task(acceptor.finish_when_asked())]
                    if owner := setup.batch_owner(app, config, served.service):
                        until_end.append(tasks.create_task(owner.run(app[observe.STOPPING])))
                    yield
                    for task in until_end:
                        task.cancel()
            finally:
                served.service.drain()
                await acceptor.stop_accepting()


def _connections(config: EdgeOptions) -> Connections:
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


async def _origins(config: ProxySettings | FrontSettings) -> Origins:
    return Origins(
        hosts=await admission.host_names([config.host, *config.allowed_hosts]),
        pages=frozenset(config.cors_origins),
        needs_key=bool(config.api_keys),
    )


def _retry_after_s(service: EmbeddingService) -> int:
    return service.load().retry_after_s


def _application(config: EdgeOptions, served: ServedFamily, job_store: jobs.Jobs) -> web.Application:
    app = web.Application(
        middlewares=(observe.observe, middleware.answer_errors, admission.admit, middleware.check_key)
    )
    app.on_response_prepare.append(observe.add_ids)
    if config.cors_origins:
        app.on_response_prepare.append(admission.add_cors_headers)
    app[middleware.API_KEYS], app[middleware.ADMIN_KEYS] = config.api_keys, served.admin_keys
    app[observe.STOPPING] = asyncio.Event()
    app[middleware.ERROR_RENDERERS] = routes.RENDERERS_BY_PATH
    app[pages.SERVICE] = served.service
    app[routes.JOBS] = job_store
    retry_after = partial(_retry_after_s, served.service)
    app[routes.BODY_MEMORY] = MemoryBudget(config.total_body_bytes, retry_after)
    app[routes.RESPONSE_MEMORY] = MemoryBudget(config.max_total_answer_bytes, retry_after)
    app[routes.BODY_LIMITS] = body.BodyLimits(
        max_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s, min_rate=MIN_RATE
    )
    setup.keep_batches(app, config)
    app[pages.FAMILY] = served.family
    app[pages.SCRAPE] = served.scrape
    facts = openapi.ServedFacts(
        table=served.service.tasks,
        dimensions=served.family.dimensions,
        token_ids=config.token_ids,
        multivector=served.service.multivector_served,
        late_chunking=served.family.weights.pooling == "mean",
        images=served.service.images_served,
        needs_key=bool(config.api_keys),
        console=served.console is not None,
    )
    app[openapi.DOCUMENT] = orjson.dumps(openapi.openapi_document(routes.ROUTES, routes.DIALECTS, facts))
    app.add_routes(routes.ROUTES)
    if served.console:
        app[CONSOLE] = served.console
        app[observe.REQUEST_LOG] = served.console.requests
        app.add_routes(routes.CONSOLE_ROUTES)
    return app
