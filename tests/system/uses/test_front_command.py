"""`trillama cluster front` before nodes of the user's own, with neither a cluster.toml nor HAProxy nor Ray."""

import asyncio
import tempfile
from pathlib import Path

from launcher.supervision.probes import proxy_up
from tests.support.nodes.cluster import LocalCluster, end, start
from tests.support.nodes.front import stub_nodes
from tests.support.polling import until
from tests.support.servers.stack import unused_port
from tests.support.servers.trillama import Run, commands


async def test_one_front_serves_the_family_of_its_nodes_and_status_shows_them() -> None:
    with tempfile.TemporaryDirectory(prefix="tf-") as name:
        cluster = LocalCluster(folder=Path(name), url=f"http://127.0.0.1:{unused_port()}")
        async with stub_nodes(2) as nodes:
            given = [f"--node={one.url}" for one in nodes]
            start(cluster, "head", "front", "--port", cluster.url.rpartition(":")[2], *given)
            try:
                await until(lambda: proxy_up(cluster.url))
                await until(lambda: _serve(cluster, 2))
                shown = await asyncio.to_thread(cluster.command, "status")
                assert (shown.returncode, "without Ray" in shown.stdout) == (0, True), shown.stdout + shown.stderr
                refused = await asyncio.to_thread(cluster.command, "roll")
                assert (refused.returncode, "restart them there" in refused.stderr) == (1, True)
                first, second = cluster.nodes()
                drained = await asyncio.to_thread(cluster.command, "drain", f"http://{first}/")  # as --node has it
                assert drained.returncode == 0, drained.stderr
                assert f"{first}  drained" in drained.stdout
                assert cluster.nodes()[first]["reason"] == "drained"
                await nodes[1].kill()
                await until(lambda: _is_down(cluster, second))
                assert (await asyncio.to_thread(cluster.command, "status")).returncode == 1
                ended = await asyncio.to_thread(cluster.command, "down")
                assert (ended.returncode, "its nodes run on" in ended.stdout) == (0, True), ended.stderr
            finally:
                await asyncio.to_thread(end, cluster)


async def _serve(cluster: LocalCluster, count: int) -> bool:
    assert cluster.programs["head"].poll() is None, cluster.log("head")
    return sum(not one["reason"] for one in cluster.nodes().values()) == count


async def _is_down(cluster: LocalCluster, name: str) -> bool:
    return cluster.nodes()[name]["reason"] == "no connection: Connection refused"


def test_nodes_that_cannot_be_are_refused_at_once(tmp_path: Path) -> None:
    with commands({"TRILLAMA_CACHE": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}) as run:
        for arguments, code, words in (
            (("front", "--node", "nosuchhost.invalid"), 69, "--node http://nosuchhost.invalid: no host has that name"),
            (("front", "--node", "127.0.0.1:9"), 69, "--node http://127.0.0.1:9 does not accept connections"),
            (("front", "--node", "ftp://gpu1"), 2, "--node 'ftp://gpu1' is not the address of a server"),
            (("haproxy", "--node", "nosuchhost.invalid"), 69, "cannot be found: no host has that name"),
        ):
            _ends(run, arguments, code, words)


def _ends(run: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = run("cluster", *arguments)
    assert (done.code, words in done.err) == (code, True), done
