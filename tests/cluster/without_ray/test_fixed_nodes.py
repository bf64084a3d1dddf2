"""Fixed nodes without Ray: before a Front, and before HAProxy alone."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from launcher.cluster.haproxy import haproxy_program
from launcher.processes.child import running
from launcher.supervision.probes import proxy_up
from tests.support.nodes.cluster import Load, LocalCluster, client, end, post, start
from tests.support.nodes.front import StubProcess, stub_nodes
from tests.support.servers.stack import unused_port

SHORT = ["x" * 400] * 32  # 14 kB: fits the buffer, so HAProxy sends it again


async def served(url: str) -> None:
    """Wait until the endpoint answers."""
    async with asyncio.timeout(60):
        while not await proxy_up(url):
            await asyncio.sleep(0.1)


async def answered(load: Load, more: int) -> None:
    target = load.answered + more
    async with asyncio.timeout(60):
        while load.answered < target:
            await asyncio.sleep(0.02)


async def load_over_a_kill(url: str, node: StubProcess) -> Load:
    """What four clients see while that node is killed."""
    load, stop = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(client(url, SHORT, load, stop))
        await answered(load, 20)
        await node.kill()
        await answered(load, 20)
        stop.set()
    return load


@contextmanager
def front_command(folder: Path, urls: list[str]) -> Iterator[LocalCluster]:
    """`trillama cluster front` before those nodes."""
    port = unused_port()
    (folder / "cluster.toml").write_text(f"[front]\nport = {port}\n", encoding="utf-8")
    cluster = LocalCluster(folder=folder, url=f"http://127.0.0.1:{port}")
    try:
        start(cluster, "head", "front", str(folder / "cluster.toml"), *(f"--node={url}" for url in urls))
        yield cluster
    finally:
        end(cluster)


async def test_a_front_before_fixed_nodes_loses_nothing_with_one(tmp_path: Path) -> None:
    async with stub_nodes(2) as nodes:
        with front_command(tmp_path, [one.url for one in nodes]) as cluster:
            await served(cluster.url)
            load = await load_over_a_kill(cluster.url, nodes[0])
            assert load.lost == []
            shown = cluster.command("status")
            assert (shown.returncode, "serves" in shown.stdout, "Connection refused" in shown.stdout) == (1, True, True)


async def test_haproxy_alone_serves_nodes_of_one_space_and_sends_short_requests_again(tmp_path: Path) -> None:
    async with stub_nodes(2) as nodes, stub_nodes(1, "--quantization=F16") as others:
        port, file = unused_port(), tmp_path / "haproxy.cfg"
        urls = [f"--node={one.url}" for one in (*nodes, *others)]
        cluster = LocalCluster(folder=tmp_path, url=f"http://127.0.0.1:{port}")
        done = await asyncio.to_thread(cluster.command, "haproxy", "--port", str(port), *urls)
        assert done.returncode == 0, done.stderr
        file.write_text(done.stdout, encoding="utf-8")
        checked = (haproxy_program(), "-c", "-q", "-f", str(file))
        assert (await asyncio.to_thread(subprocess.run, checked, check=False)).returncode == 0
        async with running((haproxy_program(), "-db", "-q", "-f", str(file)), env=os.environ, grace_s=5):
            await checked_by_haproxy(cluster.url)
            load = await load_over_a_kill(cluster.url, nodes[0])
        assert load.lost == []
        assert load.spaces == {"Q8_0"}


async def checked_by_haproxy(url: str) -> None:
    """Wait until HAProxy has checked the nodes: before its first check it takes each for a good one."""
    found: list[str] = []
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while len(found) < 12 or {*found[-12:]} != {"Q8_0"}:
            try:
                found.append((await post(session, url, ["a"]))[2]["X-Trillama-Quantization"])
            except (aiohttp.ClientError, KeyError):
                await asyncio.sleep(0.05)
