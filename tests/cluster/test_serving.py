"""Two hosts behind one endpoint: what is answered, shown and kept secret."""

import stat

import aiohttp
import numpy as np
import orjson
import pytest

from launcher.cluster.client import drain_node
from launcher.cluster.ray_start import ports
from launcher.errors import ArgumentError
from tests.support.nodes.cluster import HOSTS, LocalCluster, post

TEXTS = [f"text {number}" for number in range(200)]


async def test_answers_equal_a_nodes_own(stubs: LocalCluster) -> None:
    node = str(stubs.nodes()[HOSTS[0]]["url"])
    async with aiohttp.ClientSession() as session:
        direct, through = [orjson.loads((await post(session, url, TEXTS))[1]) for url in (node, stubs.url)]
    ours, theirs = [
        np.array([row["embedding"] for row in answer["data"]], dtype=np.float32) for answer in (through, direct)
    ]
    assert np.abs(ours - theirs).max() < 1e-6  # in float32: the stub writes more digits
    assert [row["index"] for row in through["data"]] == list(range(len(TEXTS)))
    assert through["usage"] == direct["usage"]


def test_status_shows_both_hosts_and_ends_with_0(stubs: LocalCluster) -> None:
    done = stubs.command("status")
    assert done.returncode == 0, done.stdout
    assert "2 hosts" in done.stdout
    assert all(host in done.stdout for host in HOSTS)


def test_the_token_and_the_folders_are_private(stubs: LocalCluster) -> None:
    assert stat.S_IMODE((stubs.folder / "token").stat().st_mode) == 0o600
    for folder in stubs.folder.glob("*/trillama-*"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_ray_listens_on_its_named_ports_alone(stubs: LocalCluster) -> None:
    head = stubs.program("ray")
    found = {
        connection.laddr.port
        for process in head.children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == "LISTEN"
    }
    first = min(found)
    numbered = ports(first, start_at=0)
    assert found <= set(range(first, numbered["--max-worker-port"] + 1))


def test_a_drained_node_gets_nothing_more_until_the_drain_is_undone(stubs: LocalCluster) -> None:
    assert stubs.command("drain", HOSTS[0]).returncode == 0
    assert stubs.nodes()[HOSTS[0]]["reason"] == "drained"
    assert stubs.command("status").returncode == 1
    assert stubs.command("drain", HOSTS[0], "--undo").returncode == 0
    stubs.until(stubs.all_serve, "the drained node serves again")


async def test_a_node_that_does_not_exist_cannot_be_drained(stubs: LocalCluster) -> None:
    with pytest.raises(ArgumentError, match="there is no node nowhere"):
        await drain_node(stubs.folder / "head", "nowhere", undo=False, within_s=1)
