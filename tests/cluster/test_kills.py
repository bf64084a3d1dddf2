"""SIGKILL of each kind of process under load: what is promised is not lost, and all comes back."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil
import pytest

from tests.support.nodes.cluster import HOSTS, Load, LocalCluster, client

log = logging.getLogger(__name__)

SHORT = ["x" * 400] * 32  # 14 kB: fits HAProxy's buffer, which then sends it again
LONG = ["x" * 4000] * 33  # 130 kB
HUGE = ["x" * 8000] * 250  # 2 MB


@asynccontextmanager
async def under_load(cluster: LocalCluster, *bodies: list[str]) -> AsyncIterator[Load]:
    """Two clients for each of the bodies, all of which were answered before the block begins, and again at its end."""
    load, stop = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for body in bodies * 2:
            tasks.create_task(client(cluster.url, body, load, stop))
        await answered(load, 10)
        yield load
        await answered(load, 10)
        stop.set()


async def answered(load: Load, more: int) -> None:
    """Wait until so many more requests are answered."""
    target = load.answered + more
    async with asyncio.timeout(60):
        while load.answered < target:
            await asyncio.sleep(0.05)


def other_node(cluster: LocalCluster, pid: int) -> Callable[[], bool]:
    """Whether the first host has another node than that, and all serve."""
    return lambda: cluster.all_serve() and cluster.nodes()[HOSTS[0]]["pid"] != pid


@pytest.mark.parametrize("victim", ["node", "actor", "raylet"])
async def test_nothing_is_lost_with_a_node(stubs: LocalCluster, victim: str) -> None:
    node = stubs.node(HOSTS[0])
    above = {"node": 0, "actor": 1, "raylet": 2}[victim]
    async with under_load(stubs, SHORT, LONG, HUGE) as load:
        [node, *node.parents()][above].kill()
        took = await asyncio.to_thread(stubs.until, other_node(stubs, node.pid), "another node serves")
    log.info("%s: again after %.1f s, longest of %d requests %.1f s", victim, took, load.answered, load.longest_s)
    assert load.lost == []
    assert not psutil.pid_exists(node.pid)


async def test_nothing_is_lost_while_rays_head_is_away(stubs: LocalCluster) -> None:
    before = {host: one["pid"] for host, one in stubs.nodes().items()}
    (gcs,) = [one for one in stubs.program("ray").children() if one.name() == "gcs_server"]
    async with under_load(stubs, SHORT, LONG, HUGE) as load:
        gcs.kill()
        await asyncio.to_thread(stubs.until, lambda: stubs.status()["ray"] == "away", "Ray's head is missed")
        took = await asyncio.to_thread(stubs.until, lambda: stubs.status()["ray"] == "running", "it is back")
    log.info("Ray's head: again %.1f s after it was missed, longest of %d %.1f s", took, load.answered, load.longest_s)
    assert load.lost == []
    assert {host: one["pid"] for host, one in stubs.nodes().items()} == before


async def test_short_requests_survive_a_front(stubs: LocalCluster) -> None:
    front = stubs.program("front-1")
    async with under_load(stubs, SHORT) as load:
        front.kill()
        took = await asyncio.to_thread(stubs.until, stubs.all_serve, "the Front is back")
    log.info("Front: again after %.1f s, longest of %d requests %.1f s", took, load.answered, load.longest_s)
    assert load.lost == []


async def test_a_killed_haproxy_loses_only_what_it_had(stubs: LocalCluster) -> None:
    haproxy = stubs.program("haproxy")
    async with under_load(stubs, SHORT) as load:
        haproxy.kill()
        await answered(load, 10)
    log.info("HAProxy: %d lost of %d, longest %.1f s", len(load.lost), load.answered, load.longest_s)
    assert len(load.lost) <= 2  # one of each client; no connection is refused, because the head holds the socket
