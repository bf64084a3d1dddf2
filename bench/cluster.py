"""What a cluster adds to one short text, and what it takes in memory: `.venv-cluster/bin/python -m bench.cluster`.

Two stub nodes, whose GPU is a sleep of 2 ms, on this machine. Each round asks the same in turn, so that the load of the
machine meets all alike: a node itself, a Front, and HAProxy before the Fronts.
"""

import asyncio
import re
import statistics
import sys
import time

import aiohttp

from tests.support.nodes.cluster import HOSTS, LocalCluster, local_cluster, post

_ROUNDS = 400
STUB = ("--node-argv", sys.executable, "--node-argv=-m", "--node-argv", "tests.support.nodes.stub_node")


def main() -> None:
    """Print both tables."""
    with local_cluster(STUB) as cluster:
        urls = {"a node": _node(cluster), "a Front": _front(cluster), "HAProxy and a Front": cluster.url}
        taken = asyncio.run(_measured(urls))
        direct = statistics.median(taken["a node"])
        print("| asked | p50, ms | times the node's | p90, ms |\n|---|---|---|---|")
        for name, times in taken.items():
            median, slow = statistics.median(times), statistics.quantiles(times, n=10)[-1]
            print(f"| {name} | {median * 1000:.1f} | {median / direct:.2f} | {slow * 1000:.1f} |")
        print("\n| process on the front host | resident, MiB |\n|---|---|")
        programs = cluster.status()["programs"]
        assert isinstance(programs, list)
        for one in programs:
            print(f"| {one['name']} | {one['resident_bytes'] / 2**20:.0f} |")


async def _measured(urls: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of each request, by what was asked."""
    taken: dict[str, list[float]] = {name: [] for name in urls}
    async with aiohttp.ClientSession() as session:
        for number in range(_ROUNDS):
            for name, url in urls.items():
                began = time.perf_counter()
                status, _, _ = await post(session, url, [f"short text {number}"])
                assert status == 200
                taken[name].append(time.perf_counter() - began)
    return taken


def _node(cluster: LocalCluster) -> str:
    return str(cluster.nodes()[HOSTS[0]]["url"])


def _front(cluster: LocalCluster) -> str:
    (file,) = (cluster.folder / "head").glob("trillama-*/haproxy.cfg")
    found = re.search(r"server front-1 (\S+)", file.read_text(encoding="utf-8"))
    assert found
    return f"http://{found[1]}"


if __name__ == "__main__":
    main()
