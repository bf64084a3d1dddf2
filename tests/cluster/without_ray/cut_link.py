"""A Front and three nodes, each in a network namespace of its own, and the link of one that is cut for a while.

Its packets are neither refused nor reset. Run as `unshare --net python -m tests.cluster.without_ray.cut_link`: the
namespace of this process is the Front's, and everything is gone when it ends. Prints what happened as JSON.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from launcher.processes.child import running
from tests.support.nodes.front import Load, StubProcess, front

CUT_S = 9.0
NETWORK = "10.77.0."
NODES = 3


async def main() -> None:
    """Cut the link of one node while requests run, and restore it."""
    with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
        async with AsyncExitStack() as exits:
            _ip("link", "set", "lo", "up")
            _ip("link", "add", "bridge0", "type", "bridge")
            _ip("addr", "add", f"{NETWORK}1/24", "dev", "bridge0")
            _ip("link", "set", "bridge0", "up")
            nodes = [await exits.enter_async_context(_node(Path(folder), number)) for number in range(NODES)]
            running_front = await exits.enter_async_context(front({node.name: node.url for node in nodes}))
            load = Load(running_front.url, 2048)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run(clients=8, texts=32, characters=int(sys.argv[1])))
                await load.until(30)
                _ip("link", "set", "link0", "down")
                await running_front.until_ready(NODES - 1)
                await asyncio.sleep(CUT_S)  # the outage itself
                _ip("link", "set", "link0", "up")
                await running_front.until_ready(NODES)
                await load.until(load.done + 30)
                load.stopped = True
        print(json.dumps({"done": load.done, "lost": load.lost, "wrong": load.wrong, "longest": max(load.seconds)}))  # noqa: T201 # its result


@asynccontextmanager
async def _node(folder: Path, number: int) -> AsyncIterator[StubProcess]:
    """A stub in a namespace of its own, linked to the bridge."""
    async with running(
        ("unshare", "--net", "sleep", "600"), env={"PATH": "/bin:/usr/bin:/sbin:/usr/sbin"}, grace_s=1
    ) as holder:
        inside = ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--")
        await _own_namespace(holder.pid)
        address = f"{NETWORK}{10 + number}"
        _ip("link", "add", f"link{number}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        _ip("link", "set", f"link{number}", "master", "bridge0", "up")
        _ip("addr", "add", f"{address}/24", "dev", "eth0", inside=inside)
        _ip("link", "set", "eth0", "up", inside=inside)
        node = StubProcess(f"n{number}", 8080, folder, ("--gpu-ms", "2"), host=address, through=inside)
        async with node.exits:
            await node.start()
            yield node


async def _own_namespace(pid: int) -> None:
    ours = Path("/proc/self/ns/net").readlink()
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}/ns/net").readlink() == ours:
            await asyncio.sleep(0.01)


def _ip(*arguments: str, inside: tuple[str, ...] = ()) -> None:
    subprocess.run((*inside, "ip", *arguments), check=True)


if __name__ == "__main__":
    asyncio.run(main())
