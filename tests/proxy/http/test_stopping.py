"""A stopping proxy answers every request that has reached it, if only with 503."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import tomli_w

from launcher.processes.child import running
from launcher.supervision.probes import proxy_up
from tests.support.servers.stack import BACKENDS, FAMILY_FILE, unused_port

REQUEST = b'POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"input":["a"]}'


async def test_the_connection_accepted_last_is_answered(tmp_path: Path) -> None:
    port = unused_port()
    backends = {name: {"url": f"unix://{tmp_path}/{name}.sock"} for name in BACKENDS}
    config = tmp_path / "proxy.toml"
    settings = {"family": str(FAMILY_FILE), "port": port, "max_input_tokens": 512, "backends": backends}
    config.write_text(tomli_w.dumps(settings), encoding="utf-8")
    argv = (sys.executable, "-P", "-m", "proxy", "--config", str(config))
    async with running(argv, env=os.environ, grace_s=10) as proxy, asyncio.timeout(30):
        while not await proxy_up(f"http://127.0.0.1:{port}"):
            await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await proxy_up(f"http://127.0.0.1:{port}")  # it accepts connections in order: ours has been accepted
        proxy.send_signal(signal.SIGTERM)
        await refused(port)
        writer.write(REQUEST)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: close" in answer


async def refused(port: int) -> None:
    """Wait until the port is closed."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        writer.close()
