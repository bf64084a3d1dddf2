"""`python -m proxy --config FILE`, or `--front FILE`: arguments → settings → run. The only module that exits."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from proxy.app import ServedFamily, serving
from proxy.backends import backend_service
from proxy.console.console import running_console
from proxy.console.state import ConsoleFacts
from proxy.contract.family import Family
from proxy.contract.front import FrontSettings, load_front_settings
from proxy.contract.log_lines import JsonFormatter, LogFormat, PrintableFormatter
from proxy.contract.settings import ProxySettings, load_proxy_settings
from proxy.contract.settings_file import BadSettings
from proxy.embedding.service import EmbedService
from proxy.front.service import front_service
from proxy.http import admin
from proxy.monitoring.launcher_client import LauncherClient
from proxy.monitoring.scrape import Scrape
from proxy.process import allocator, open_files
from proxy.process.log_repeats import Repeats

EX_CONFIG = 78  # sysexits.h
EX_TEMPFAIL = 75


def main() -> None:
    """Serve until SIGTERM or SIGINT. Exit codes: 0 stopped, 78 invalid configuration, 75 the port is taken."""
    parser = argparse.ArgumentParser(prog="proxy", description="Jina's and OpenAI's embeddings API over llama-servers")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--config", type=Path, help="the TOML file of a proxy before llama-servers")
    kind.add_argument("--front", type=Path, help="the TOML file of a Front, one endpoint before many nodes")
    parser.add_argument(
        "--take-over", action="store_true", help="accept connections only after POST /accept on the control socket"
    )
    parser.add_argument("--listen-fd", type=int, help="serve on this listening socket instead of opening one")
    arguments = parser.parse_args()
    logging.raiseExceptions = False  # a line that cannot be written is dropped: the terminal closed, or a full disk
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    logging.getLogger().handlers[0].setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().handlers[0].addFilter(Repeats())
    os.umask(0o077)  # caches and batches have the users' texts in them
    open_files.raise_limit()
    allocator.return_large_blocks()
    # A text is tokenised in microseconds: waking a thread pool costs more, and the engine needs the cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        settings, family = (
            load_proxy_settings(arguments.config) if arguments.config else load_front_settings(arguments.front)
        )
        if settings.log_format is LogFormat.JSON:
            logging.getLogger().handlers[0].setFormatter(JsonFormatter())
            logging.captureWarnings(capture=True)
        asyncio.run(_run(settings, family, arguments.listen_fd, accepting=not arguments.take_over))
    except BadSettings as error:
        sys.exit(_fail(EX_CONFIG, str(error)))
    except OSError as error:
        sys.exit(_fail(EX_TEMPFAIL, f"cannot listen: {error}"))


async def _run(
    settings: ProxySettings | FrontSettings, family: Family, listen_fd: int | None, *, accepting: bool
) -> None:
    logging.getLogger().setLevel(settings.log_level.upper())
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    with _listener(settings, listen_fd) as listener:
        async with (
            _served(settings, family) as served,
            serving(settings, served, listener, stop=stop, accepting=accepting),
        ):
            host, port = listener.getsockname()[:2]
            # The launcher says itself where it serves; this line would stand in the middle of its progress bars.
            level = logging.INFO if listen_fd is None else logging.DEBUG
            logging.getLogger("proxy").log(level, "listening on %s port %d", host, port)
            await stop.wait()


@asynccontextmanager
async def _served(settings: ProxySettings | FrontSettings, family: Family) -> AsyncIterator[ServedFamily]:
    if isinstance(settings, FrontSettings):
        async with front_service(settings, family) as front:
            scrape = Scrape((), LauncherClient(None), family.name)
            yield ServedFamily(family=family, service=front, scrape=scrape, control=admin.node_routes(front.nodes))
    else:
        async with backend_service(settings, family) as service:
            models, launcher = service.all_models, LauncherClient(settings.launcher)
            async with AsyncExitStack() as parts:
                console = None
                if settings.console:
                    facts = _console_facts(settings, family, service)
                    console = await parts.enter_async_context(running_console(facts, models, launcher))
                yield ServedFamily(
                    family=family,
                    service=service,
                    scrape=Scrape(models.values(), launcher, family.name),
                    control=admin.lane_routes(models),
                    admin_keys=settings.admin_keys,
                    console=console,
                )


def _console_facts(settings: ProxySettings, family: Family, service: EmbedService) -> ConsoleFacts:
    return ConsoleFacts(
        family=family,
        table=service.tasks,
        input_tokens=service.limits.input_tokens,
        items=service.limits.items,
        notice=service.notice,
        cache=bool(settings.cache_bytes),
        multivector=service.multivector_served,
        images=service.images_served,
        needs_key=bool(settings.api_keys),
        has_admin_keys=bool(settings.admin_keys),
    )


def _listener(settings: ProxySettings | FrontSettings, fd: int | None) -> socket.socket:
    if fd is not None:
        return socket.socket(fileno=fd)
    kind = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=kind, backlog=open_files.BACKLOG)


def _fail(code: int, message: str) -> int:
    logging.getLogger("proxy").error("%s", message)
    return code


if __name__ == "__main__":
    main()
