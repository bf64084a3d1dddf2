"""What systemd hears from a real `trillama serve`, over a real notify socket."""

import asyncio
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from launcher.systemd.notify import feed_watchdog
from tests.support.servers.serve import quick_engine, trillama_serve
from tests.support.servers.stack import small_family


async def test_ready_is_sent_after_the_golden_checks_then_liveness_then_stopping(tmp_path: Path) -> None:
    family, models = small_family(tmp_path)
    config: dict[str, object] = {
        "family": str(family),
        "max_input_tokens": 512,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": quick_engine(),
    }
    with tempfile.TemporaryDirectory(prefix="n-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        address = str(Path(folder, "notify.sock"))
        heard.bind(address)
        heard.setblocking(False)
        told: list[str] = []

        async def until(line: str) -> None:
            async with asyncio.timeout(30):
                while line not in told:
                    message = await asyncio.get_running_loop().sock_recv(heard, 4096)
                    told.extend(message.decode().splitlines())

        async with trillama_serve(
            config, ready=False, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        ) as serve:
            await until("READY=1")
            states = [line for line in told if line.startswith("STATUS=")]
            assert all(f"{name} ready" in states[-1] for name in models)
            told.clear()
            await until("WATCHDOG=1")
            serve.process.send_signal(signal.SIGTERM)
            await until("STOPPING=1")
            assert await serve.ended() == 0


async def test_one_no_does_not_cost_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is being started again just then is no reason to kill the service."""
    with tempfile.TemporaryDirectory(prefix="n-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address := str(Path(folder, "notify.sock")))
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "8000000")
        answers = iter((False, True))

        async def alive() -> bool:
            return next(answers)

        feeding = asyncio.ensure_future(feed_watchdog(alive))
        async with asyncio.timeout(2):
            assert await asyncio.get_running_loop().sock_recv(heard, 4096) == b"WATCHDOG=1"
        feeding.cancel()
