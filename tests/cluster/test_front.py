"""A Front before stub nodes: nothing is lost when nodes or links are, and more nodes are more throughput."""

import asyncio
import json
import shutil
import subprocess
import sys
import time

import pytest

from tests.support.front import Load, front, stub_nodes

DIMENSIONS = 2048


def _may_unshare() -> bool:
    unshare, *others = map(shutil.which, ("unshare", "nsenter", "ip"))
    if not unshare or not all(others):
        return False
    return subprocess.run((unshare, "--net", "true"), check=False, capture_output=True).returncode == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("texts", "characters", "requests"),
    [(32, 400, 500), (32, 4000, 500), (500, 4000, 60)],
    ids=["14kB", "130kB", "2MB"],
)
async def test_no_request_is_lost_when_nodes_are_killed(texts: int, characters: int, requests: int) -> None:
    async with (
        stub_nodes(3, "--gpu-ms", "1") as nodes,
        front({node.name: node.url for node in nodes}) as running,
        asyncio.TaskGroup() as tasks,
    ):
        load = Load(running.url, DIMENSIONS)
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
    argv = ("unshare", "--net", sys.executable, "-m", "tests.cluster.cut_link", "4000")
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(output)
    assert (found["lost"], found["wrong"]) == ([], 0)
    assert found["longest"] < 8  # shorter than the outage: what was in flight there was computed elsewhere


async def _texts_per_s(count: int, seconds: float = 5.0) -> float:
    async with (
        stub_nodes(count, "--gpu-ms", "10") as nodes,
        front({node.name: node.url for node in nodes}) as running,
        asyncio.TaskGroup() as tasks,
    ):
        load = Load(running.url, DIMENSIONS)
        tasks.create_task(load.run(clients=4 * count, texts=8, characters=400))
        await load.until(8 * count)
        before, started = load.texts, time.perf_counter()
        await asyncio.sleep(seconds)  # what is measured
        found = (load.texts - before) / (time.perf_counter() - started)
        load.stopped = True
    assert (load.lost, load.wrong) == ([], 0)
    return found


@pytest.mark.timeout(240)
async def test_more_nodes_are_more_throughput() -> None:
    found = {count: await _texts_per_s(count) for count in (2, 4, 6)}
    assert found[4] >= 0.9 * 2 * found[2], found
    assert found[6] >= 0.9 * 3 * found[2], found


async def _seconds_of_one_request(count: int) -> float:
    async with (
        stub_nodes(count, "--gpu-ms", "5") as nodes,
        front({node.name: node.url for node in nodes}) as running,
    ):
        load = Load(running.url, DIMENSIONS)
        seconds = await load.one(texts=2048, characters=100)
        assert (load.lost, load.wrong) == ([], 0)
        return seconds


@pytest.mark.timeout(120)
async def test_one_request_uses_all_nodes() -> None:
    alone = await _seconds_of_one_request(1)
    together = await _seconds_of_one_request(4)
    assert alone / together >= 3.4, (alone, together)
