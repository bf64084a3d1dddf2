"""`trillama serve` when its terminal is closed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.servers.serve import Serve, empty, gone, trillama_serve
from tests.system.faults.test_faults import config, faulty_engine, status, until

__all__ = ["config", "faulty_engine"]  # fixtures

ON_A_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.dup2(int(sys.argv[1]), 2)
os.close(int(sys.argv[1]))
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] == "nohup" else signal.SIG_DFL)
os.execv(sys.argv[3], sys.argv[3:])
"""


@dataclass(slots=True)
class Terminal:
    """A pseudo-terminal that shows what is written; closing it hangs up on the processes that it controls."""

    master: int
    seen: bytes = b""

    def show(self) -> None:
        try:
            self.seen += os.read(self.master, 65536)
        except OSError:  # nobody has its other end any more
            asyncio.get_running_loop().remove_reader(self.master)

    async def said(self, text: str) -> None:
        async with asyncio.timeout(30):
            while text.encode() not in self.seen:
                await asyncio.sleep(0.02)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)


@asynccontextmanager
async def on_a_terminal(config: dict[str, object], how: str) -> AsyncIterator[tuple[Serve, Terminal]]:
    """`trillama serve` controlled by a terminal of its own, which has its errors."""
    master, slave = os.openpty()
    terminal = Terminal(master)
    asyncio.get_running_loop().add_reader(master, terminal.show)
    through = (sys.executable, "-c", ON_A_TERMINAL, str(slave), how)
    async with trillama_serve(config, through=through, pass_fds=(slave,)) as serve:
        os.close(slave)
        yield serve, terminal


async def test_a_terminal_that_closes_ends_it_and_a_hangup_by_hand_does_not(config: dict[str, object]) -> None:
    async with on_a_terminal(config, "") as (serve, terminal):
        children = serve.children()
        serve.process.send_signal(signal.SIGHUP)
        await terminal.said("has been read again")
        assert await status(serve, "code") == 200
        terminal.close()
        assert await serve.ended() == 0
        await gone(children)
        await empty(serve.runtime)


async def test_under_nohup_it_keeps_serving_without_its_terminal(config: dict[str, object]) -> None:
    async with on_a_terminal(config, "nohup") as (serve, terminal):
        terminal.close()
        for _ in range(2):  # each says that it is started again, to nobody
            await serve.kill("code.sock")
            await until(serve, "code", 200)
        await serve.kill("proxy.toml")
        await until(serve, "code", 200)
        serve.process.send_signal(signal.SIGTERM)
        assert await serve.ended() == 0
        await empty(serve.runtime)
