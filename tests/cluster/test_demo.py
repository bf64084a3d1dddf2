"""A cluster of real nodes: llama-servers on the made-up models of the demo."""

from collections.abc import Iterator

import aiohttp
import numpy as np
import orjson
import pytest

from tests.support.nodes.cluster import LocalCluster, local_cluster, post

HOST = "127.0.0.2"


@pytest.fixture(scope="module")
def demo() -> Iterator[LocalCluster]:
    with local_cluster(["--demo", "--tiny"], hosts=[HOST]) as cluster:
        yield cluster


async def test_vectors_order_and_usage_are_a_nodes_own(demo: LocalCluster) -> None:
    texts = [f"the door number {number} is red" for number in range(80)]
    node = str(demo.nodes()[HOST]["url"])
    async with aiohttp.ClientSession() as session:
        direct, through = [orjson.loads((await post(session, url, texts))[1]) for url in (node, demo.url)]
    ours, theirs = [np.array([row["embedding"] for row in answer["data"]]) for answer in (through, direct)]
    assert np.abs(ours - theirs).max() < 1e-3  # llama.cpp rounds by the composition of a batch
    assert through["usage"] == direct["usage"]


def test_down_ends_the_nodes_and_the_head(demo: LocalCluster) -> None:
    node = demo.node(HOST)
    assert demo.command("down").returncode == 0
    assert demo.programs["head"].wait(60) == 0
    demo.until(lambda: not node.is_running(), "the node ends")
    assert demo.command("status").returncode == 69
