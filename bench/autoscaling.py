"""Two hosts, one of which serves until much is waiting: `.venv-cluster/bin/python -m bench.autoscaling`.

The nodes are stubs whose GPU is a sleep of 20 ms a text. Prints after how long the second one serves, after how long
one of them is ended again when little is asked, and what is lost meanwhile.
"""

import asyncio
import sys
import tomllib

from tests.support.nodes.cluster import HOSTS, Load, LocalCluster, client, local_cluster, start

STUB_ARGUMENTS = [
    f"--node-argv={word}" for word in (sys.executable, "-m", "tests.support.nodes.stub_node", "--gpu-ms", "20")
]
SCALE = {"scale": {"min_nodes": 1, "max_nodes": 2, "queued_s": 2, "idle_s": 5}}
MANY, FEW = (8, ["x" * 400] * 32), (1, ["x"])  # clients, and the texts of each of their requests


def main() -> None:
    """Print what was seen."""
    with local_cluster(STUB_ARGUMENTS, SCALE, hosts=HOSTS[:1]) as cluster:
        port = tomllib.loads((cluster.folder / "cluster.toml").read_text(encoding="utf-8"))["ray"]["port"]
        token, ports = str(cluster.folder / "token"), str(port + 256)
        where = ("--token-file", token, "--address", HOSTS[1], "--first-port", ports)
        start(cluster, HOSTS[1], "join", f"127.0.0.1:{port}", *where, *STUB_ARGUMENTS)
        cluster.until(lambda: cluster.status().get("hosts") == list(HOSTS), "the second host has joined")
        assert len(cluster.nodes()) == 1
        asyncio.run(until_nodes(cluster, 2, *MANY))
        asyncio.run(until_nodes(cluster, 1, *FEW))


async def until_nodes(cluster: LocalCluster, count: int, clients: int, texts: list[str]) -> None:
    """Let so many clients ask until so many nodes serve."""
    load, stop = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client(cluster.url, texts, load, stop))
        took = await asyncio.to_thread(cluster.until, lambda: serving_nodes(cluster) == count, f"{count} nodes serve")
        stop.set()
    print(f"{count} nodes after {took:.0f} s; {len(load.lost)} of {load.answered} requests lost")


def serving_nodes(cluster: LocalCluster) -> int:
    return sum(not one["reason"] for one in cluster.nodes().values())


if __name__ == "__main__":
    main()
