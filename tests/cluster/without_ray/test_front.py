"""A Front before stub nodes: nothing is lost when nodes or links are, and more nodes are more throughput."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.nodes.front import Load, RunningFront, StubProcess, front, stub_nodes

DIMENSIONS = 2048


def _may_unshare() -> bool:
    unshare, *others = map(shutil.which, ("unshare", "nsenter", "ip"))
    if not unshare or not all(others):
        return False
    return subprocess.run((unshare, "--net", "true"), check=False, capture_output=True).returncode == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three() -> AsyncIterator[tuple[list[StubProcess], RunningFront]]:
    """Three nodes, and a Front before them."""
    async with (
        stub_nodes(3, "--gpu-ms", "1") as nodes,
        front({node.name: node.url for node in nodes}) as running,
    ):
        yield nodes, running


@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("texts", "characters", "requests"),
    [(32, 400, 500), (32, 4000, 500), (500, 4000, 60)],
    ids=["14kB", "130kB", "2MB"],
)
async def test_no_request_is_lost_when_nodes_are_killed(
    texts: int, characters: int, requests: int, three: tuple[list[StubProcess], RunningFront]
) -> None:
    nodes, running = three
    load = Load(running.url, DIMENSIONS)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run(clients=8, texts=texts, characters=characters))
        for number in range(3):
            await load.until(load.done + requests // 5, 200)
            await nodes[number].kill()
            await load.until(load.done + requests // 20, 200)
            await nodes[number].start()
            await running.until_ready(3)
        await load.until(requests, 200)
        load.stopped = True
    assert (load.lost, load.wrong) == ([], 0)
    assert load.done >= requests


@pytest.mark.timeout(180)
@pytest.mark.skipif(not _may_unshare(), reason="needs root, and `unshare`, `nsenter` and `ip`: it cuts a link")
async def test_no_request_is_lost_when_a_link_is_cut() -> None:
    argv = ("unshare", "--net", sys.executable, "-m", "tests.cluster.without_ray.cut_link", "4000")
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(output)
    assert (found["lost"], found["wrong"]) == ([], 0)
    assert found["longest"] < 8  # shorter than the outage: what was in flight there was computed elsewhere


async def _texts_per_s(running: RunningFront, count: int, seconds: float = 5.0) -> float:
    load = Load(running.url, DIMENSIONS)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run(clients=4 * count, texts=8, characters=400))
        await load.until(8 * count)
        before, started = load.texts, time.perf_counter()
        await asyncio.sleep(seconds)  # what is measured
        found = (load.texts - before) / (time.perf_counter() - started)
        load.stopped = True
    assert (load.lost, load.wrong) == ([], 0)
    return found


async def _seconds_of_one_request(running: RunningFront) -> float:
    load = Load(running.url, DIMENSIONS)
    seconds = await load.one(texts=1024, characters=100)
    assert (load.lost, load.wrong) == ([], 0)
    return seconds


@pytest.mark.timeout(300)
async def test_more_nodes_are_more_throughput_and_one_request_uses_all_of_them() -> None:
    rates, seconds = dict[int, float](), dict[int, float]()
    async with stub_nodes(6, "--gpu-ms", "10") as nodes, front({nodes[0].name: nodes[0].url}) as running:
        for count in (1, 2, 4, 6):
            assert await running.replace({node.name: node.url for node in nodes[:count]}) < 300
            await running.until_ready(count)
            if count in (1, 4):
                seconds[count] = await _seconds_of_one_request(running)
            if count > 1:
                rates[count] = await _texts_per_s(running, count)
    assert rates[4] >= 0.9 * 2 * rates[2], rates
    assert rates[6] >= 0.9 * 3 * rates[2], rates
    assert seconds[1] / seconds[4] >= 3.4, seconds
