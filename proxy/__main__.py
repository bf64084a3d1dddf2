"""`python -m proxy --config FILE`: arguments → settings → run. The only module of the proxy that exits."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from proxy.app import serving
from proxy.contract.family import Family
from proxy.contract.settings import ProxySettings, load_proxy_settings
from proxy.contract.settings_file import BadSettings
from proxy.process import allocator, open_files
from proxy.process.log_repeats import Repeats

EX_CONFIG = 78  # sysexits.h
EX_TEMPFAIL = 75


def main() -> None:
    """Serve until SIGTERM or SIGINT. Exit codes: 0 stopped, 78 invalid configuration, 75 the port is taken."""
    parser = argparse.ArgumentParser(prog="proxy", description="Jina's and OpenAI's embeddings API over llama-servers")
    parser.add_argument("--config", type=Path, required=True, help="the proxy's TOML file")
    parser.add_argument(
        "--take-over", action="store_true", help="accept connections only after POST /accept on the control socket"
    )
    parser.add_argument("--listen-fd", type=int, help="serve on this listening socket instead of opening one")
    arguments = parser.parse_args()
    logging.raiseExceptions = False  # a line that cannot be written is dropped: the terminal closed, or a full disk
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger().handlers[0].addFilter(Repeats())
    os.umask(0o077)  # caches and batches have the users' texts in them
    open_files.raise_limit()
    allocator.return_large_blocks()
    # A text is tokenised in microseconds: waking a thread pool costs more, and the engine needs the cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        settings, family = load_proxy_settings(arguments.config)
        asyncio.run(_run(settings, family, arguments.listen_fd, accepting=not arguments.take_over))
    except BadSettings as error:
        sys.exit(_fail(EX_CONFIG, str(error)))
    except OSError as error:
        sys.exit(_fail(EX_TEMPFAIL, f"cannot listen: {error}"))


async def _run(settings: ProxySettings, family: Family, listen_fd: int | None, *, accepting: bool) -> None:
    logging.getLogger().setLevel(settings.log_level.upper())
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    with _listener(settings, listen_fd) as listener:
        async with serving(settings, family, listener, stop=stop, accepting=accepting):
            logging.getLogger("proxy").info("listening on %s port %d", *listener.getsockname()[:2])
            await stop.wait()


def _listener(settings: ProxySettings, fd: int | None) -> socket.socket:
    if fd is not None:
        return socket.socket(fileno=fd)
    kind = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=kind, backlog=open_files.BACKLOG)


def _fail(code: int, message: str) -> int:
    logging.getLogger("proxy").error("%s", message)
    return code


if __name__ == "__main__":
    main()
