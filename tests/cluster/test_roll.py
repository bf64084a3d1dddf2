"""Another model on all hosts, one after the other: never two vector spaces at once, and nothing is lost."""

import asyncio
import logging
from pathlib import Path

import aiohttp

from tests.support.nodes.cluster import HOSTS, LocalCluster, post

log = logging.getLogger(__name__)

OTHER = "Q4_K_M"


async def space_of(session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    """The status of a request, and which quantisation made its vectors."""
    status, _, headers = await post(session, url, [f"text {number}" for number in range(100)])
    return status, headers.get("X-Trillama-Quantization", "")


async def served(url: str, stop: asyncio.Event) -> list[tuple[int, str]]:
    """What one client got, in order, until told to stop."""
    found: list[tuple[int, str]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        while not stop.is_set():
            found.append(await space_of(session, url))
    return found


async def test_a_roll_moves_all_nodes_to_the_other_model(stubs: LocalCluster, stub_model: Path) -> None:
    before = stubs.nodes()
    stub_model.write_text(OTHER, encoding="utf-8")
    stop = asyncio.Event()
    asking = [asyncio.create_task(served(stubs.url, stop)) for _ in range(2)]
    done = await asyncio.to_thread(stubs.command, "roll")
    assert done.returncode == 0, done.stderr
    took = await asyncio.to_thread(stubs.until, lambda: rolled(stubs), "all nodes serve the other model")
    stop.set()
    for found in await asyncio.gather(*asking):
        spaces = [space for _, space in found]
        log.info("roll: %.1f s, %d requests, the last of the old model was number %d", took, len(found), last(spaces))
        assert {status for status, _ in found} == {200}
        assert set(spaces) == {"Q8_0", OTHER}
        assert "Q8_0" not in spaces[spaces.index(OTHER) :]
    assert all(one["pid"] != before[host]["pid"] for host, one in stubs.nodes().items())


def rolled(cluster: LocalCluster) -> bool:
    view = cluster.status()
    spaces = view.get("spaces")
    return (
        isinstance(spaces, dict)
        and not view["rolling"]
        and all(OTHER in space for space in spaces.values())
        and cluster.all_serve()
    )


def last(spaces: list[str]) -> int:
    return len(spaces) - 1 - spaces[::-1].index("Q8_0")


def test_a_node_of_another_space_is_refused_with_the_reason(stubs: LocalCluster, stub_model: Path) -> None:
    victim = stubs.node(HOSTS[0])
    stub_model.write_text("F16", encoding="utf-8")
    victim.kill()
    stubs.until(lambda: "other vector space" in str(stubs.nodes().get(HOSTS[0], {}).get("reason")), "it is refused")
    reason = str(stubs.nodes()[HOSTS[0]]["reason"])
    assert "F16" in reason
    assert "the cluster serves" in reason
    stub_model.write_text(OTHER, encoding="utf-8")
    stubs.node(HOSTS[0]).kill()
    stubs.until(stubs.all_serve, "with the right model it serves again")
