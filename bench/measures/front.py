"""The cost and the gain of a Front before several nodes, which are stubs whose GPU is a sleep: see `stub_node`."""

import asyncio
import statistics
import time
from dataclasses import dataclass

import aiohttp
import orjson
import psutil

from bench.rows import Found, Row
from bench.servers.contenders import Host
from tests.support.nodes.front import Load, RunningFront, StubProcess, front, stub_nodes

DIMENSIONS = 2048
_PAIRS, _WINDOW_S = 300, 8.0
BODIES = {"14 kB": (32, 400), "130 kB": (32, 4000), "2 MB": (500, 4000)}  # texts, characters of each
_REQUESTS, _KILLS = 500, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """The requests of one size while nodes were killed, and the most memory that the Front had."""

    done: int
    lost: int
    wrong: int
    longest_s: float
    megabytes: float


async def before_many_nodes(host: Host, seed: int) -> Found:  # noqa: ARG001 # no engine is asked
    """Added latency, linearity, one large request on four nodes, and what is lost by kill -9."""
    added = await _added_ms()
    speeds = {count: await _texts_per_s(count) for count in (2, 4, 6)}
    alone, together = await _one_request_s(1), await _one_request_s(4)
    killed = {name: await _killed(*size) for name, size in BODIES.items()}
    linear = {count: speeds[count] / speeds[2] * 2 / count for count in (4, 6)}
    most = max(one.megabytes for one in killed.values())
    rows = [
        Row(
            measure="added median latency of a Front, one short text, idle",
            goal="≤ 5 ms",
            seen=f"+{added:.2f} ms",
            met=added <= 5,
        ),
        Row(
            measure="texts/s through a Front, 2 → 4 → 6 nodes, of linear",
            goal="≥ 0.9",
            seen=f"{linear[4]:.2f}, {linear[6]:.2f}",
            met=min(linear.values()) >= 0.9,
        ),
        Row(
            measure="one request of 2,048 texts on 4 nodes, vs one node",
            goal="≥ 3.4",
            seen=f"{alone / together:.2f} ({alone:.1f} s → {together:.1f} s)",
            met=alone / together >= 3.4,
        ),
        *(
            Row(
                measure=f"lost and wrong while each of 3 nodes is killed once, bodies of {name}",
                goal="0, 0",
                seen=f"{one.lost}, {one.wrong} of {one.done}; longest {one.longest_s:.1f} s",
                met=one.lost == one.wrong == 0,
            )
            for name, one in killed.items()
        ),
        Row(measure="memory of a Front, at most", goal="≤ 300 MB", seen=f"{most:.0f} MB", met=most <= 300),
    ]
    figures = {f"{count} nodes": {"texts_per_s": speed} for count, speed in speeds.items()}
    return Found(model="stub nodes: no model", rows=rows, figures=figures)


def _urls(nodes: list[StubProcess]) -> dict[str, str]:
    return {node.name: node.url for node in nodes}


async def _added_ms() -> float:
    """The median of pairs: the same text through the Front and directly, in turn."""
    async with (
        stub_nodes(1, "--gpu-ms", "2") as nodes,
        front(_urls(nodes)) as running,
        aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session,
    ):
        pairs = [
            (await _seconds(session, running.url, number), await _seconds(session, nodes[0].url, number))
            for number in range(_PAIRS)
        ]
    return statistics.median(through - direct for through, direct in pairs) * 1e3


async def _seconds(session: aiohttp.ClientSession, url: str, number: int) -> float:
    body = orjson.dumps({"input": [f"query {number}"], "task": "retrieval.query", "embedding_type": "base64"})
    started = time.perf_counter()
    async with session.post(f"{url}/v1/embeddings", data=body) as response:
        assert response.status == 200
        await response.read()
    return time.perf_counter() - started


async def _texts_per_s(count: int) -> float:
    async with (
        stub_nodes(count, "--gpu-ms", "10") as nodes,
        front(_urls(nodes)) as running,
        asyncio.TaskGroup() as tasks,
    ):
        load = Load(running.url, DIMENSIONS)
        tasks.create_task(load.run(clients=4 * count, texts=8, characters=400))
        await load.until(8 * count)
        before, started = load.texts, time.perf_counter()
        await asyncio.sleep(_WINDOW_S)
        found = (load.texts - before) / (time.perf_counter() - started)
        load.stopped = True
    assert not load.lost
    return found


async def _one_request_s(count: int) -> float:
    async with stub_nodes(count, "--gpu-ms", "5") as nodes, front(_urls(nodes)) as running:
        load = Load(running.url, DIMENSIONS)
        seconds = await load.one(texts=2048, characters=100)
        assert (load.lost, load.wrong) == ([], 0)
        return seconds


async def _killed(texts: int, characters: int) -> Killed:
    async with stub_nodes(3, "--gpu-ms", "1") as nodes, front(_urls(nodes)) as running, asyncio.TaskGroup() as tasks:
        load = Load(running.url, DIMENSIONS)
        tasks.create_task(load.run(clients=8, texts=texts, characters=characters))
        most = 0.0
        for node in nodes[:_KILLS]:
            await load.until(load.done + _REQUESTS // (_KILLS + 2), 600)
            await node.kill()
            await load.until(load.done + _REQUESTS // 20, 600)
            most = max(most, _megabytes(running))
            await node.start()
            await running.until_ready(3)
        await load.until(_REQUESTS, 600)
        most = max(most, _megabytes(running))
        load.stopped = True
    return Killed(done=load.done, lost=len(load.lost), wrong=load.wrong, longest_s=max(load.seconds), megabytes=most)


def _megabytes(running: RunningFront) -> float:
    return float(psutil.Process(running.process.pid).memory_info().rss) / 1e6
