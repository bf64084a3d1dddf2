"""Who sees what in the console, and who may act: keys, this machine, pages of other origins."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from proxy.console.console import MAX_OF_ONE_CLIENT
from tests.support.servers.operated import ADMIN, CLIENT, TIMEOUT_S, Operated, first_events, operated_proxy, rows_of

HTML = {"Accept": "text/html"}
MANY = {"Authorization": "Bearer many"}  # of a key that no other test watches with
RESTART = "/console/backends/code/restart"
pytestmark = pytest.mark.asyncio(loop_scope="module")  # the stub of the launcher runs in the fixture's loop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operated(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Operated]:
    folder = tmp_path_factory.mktemp("operated")
    (folder / "retrieval.log").write_text("".join(f"line {number}\n" for number in range(20_000)), encoding="utf-8")
    async with operated_proxy(folder, launched=True, api_keys=["client", "other", "many"], admin_keys=["boss"]) as one:
        yield one


async def watching_status(operated: Operated) -> int:
    """The status of a new watcher, who leaves at once."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{operated.stack.url}/console/events", headers=MANY) as response,
    ):
        return response.status


async def test_it_needs_the_key_as_metrics_do_and_tells_who_may_act(operated: Operated) -> None:
    for path in ("/console/state", "/console/events"):
        assert (await operated.stack.get(path)).status == 401
    assert (await operated.state(**CLIENT))["admin"] is False
    assert (await operated.state(**ADMIN))["admin"] is True
    assert (await operated.stack.get("/", **HTML)).status == 200
    assert (await operated.stack.get("/console/static/app.js")).status == 200


async def test_the_state_says_why_a_backend_is_down_to_operators(operated: Operated) -> None:
    """The launcher's reason may quote a line of a llama-server's log, and that a text."""
    told = {one["name"]: one["process"] for one in rows_of(await operated.state(**CLIENT), "backends")}
    causes = [one["cause"] for one in (told["retrieval"], told["code"]) if isinstance(one, dict)]
    assert causes == ["shown to operators", ""]
    backends = {one["name"]: one for one in rows_of(await operated.state(**ADMIN), "backends")}
    process = backends["retrieval"]["process"]
    assert isinstance(process, dict)
    assert (process["state"], process["cause"]) == ("backoff", "llama-server ended with signal 9")
    assert (process["restarts"], process["devices"], process["planned_bytes"]) == (3, ["CUDA0"], {"CUDA0": 2**30})
    assert backends["retrieval"]["state"] == "down"
    assert str(backends["retrieval"]["reason"])
    assert backends["text-matching"]["process"] is None


async def test_a_client_sees_its_own_requests_and_an_admin_all(operated: Operated) -> None:
    keys = {name: {"Authorization": f"Bearer {name}", "X-Request-ID": f"of-{name}"} for name in ("client", "other")}
    for headers in keys.values():
        assert (await operated.stack.get("/v1/models", **headers)).status == 200
    for headers, ids in ((CLIENT, {"of-client"}), (keys["other"], {"of-other"}), (ADMIN, {"of-client", "of-other"})):
        records = (await first_events(operated.stack, "/console/events", {"requests"}, headers))["requests"]
        assert isinstance(records, list)
        assert {one["id"] for one in records if str(one["id"]).startswith("of-")} == ids
        listed = {one["client"] for one in rows_of(await operated.state(**headers), "clients")}
        assert {one["client"] for one in records} == listed if len(ids) == 1 else len(listed) > 1


async def test_one_client_cannot_hold_every_watchers_place(operated: Operated) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{operated.stack.url}/console/events"
        held = [await session.get(url, headers=MANY) for _ in range(MAX_OF_ONE_CLIENT)]
        assert {one.status for one in held} == {200}
        refused = await operated.stack.get("/console/events", **MANY)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
        assert await first_events(operated.stack, "/console/events", {"state"}, ADMIN)
        for one in held:
            one.close()
    async with asyncio.timeout(TIMEOUT_S):
        while (await watching_status(operated)) != 200:
            await asyncio.sleep(0.05)


async def test_only_an_admin_reads_logs(operated: Operated) -> None:
    refused = await operated.stack.get("/console/events?logs=retrieval", **CLIENT)
    assert (refused.status, refused.json["code"]) == (403, "ADMIN_KEY_REQUIRED")
    lines = (await first_events(operated.stack, "/console/events?logs=retrieval", {"log"}, ADMIN))["log"]
    assert isinstance(lines, list)
    assert (len(lines), lines[-1]) == (500, "line 19999")
    for name in ("text-matching", "../retrieval", ""):
        assert (await operated.stack.get(f"/console/events?logs={name}", **ADMIN)).status == 404


async def test_an_admin_acts_through_the_launcher_and_sees_what_came_of_it(operated: Operated) -> None:
    for verb in ("restart", "pause", "resume"):
        begun = await operated.post(f"/console/backends/code/{verb}", **ADMIN)
        assert (begun.status, begun.json["verb"], begun.json["backend"]) == (202, verb, "code")
    assert (await operated.post("/console/reload", **ADMIN)).status == 202
    async with asyncio.timeout(TIMEOUT_S):
        actions = rows_of(await operated.state(**ADMIN), "actions")
        while not all(one["done"] for one in actions):
            await asyncio.sleep(0.02)
            actions = rows_of(await operated.state(**ADMIN), "actions")
    errors = {str(one["verb"]): one["error"] for one in actions}
    assert errors == {"restart": "", "pause": "", "resume": "", "reload": "another port needs a restart"}
    others = {str(one["verb"]): one["error"] for one in rows_of(await operated.state(**CLIENT), "actions")}
    assert others == {**errors, "reload": "shown to operators"}
    assert sorted(operated.launcher.told) == [
        *(f"/backends/code/{verb}" for verb in ("pause", "restart", "resume")),
        "/reload",
    ]
    assert (await operated.post("/console/backends/nobody/restart", **ADMIN)).status == 404
    assert (await operated.post("/console/backends/code/explode", **ADMIN)).status == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (CLIENT, 403),
        ({}, 401),
        ({**ADMIN, "Origin": "http://evil.example"}, 403),
        ({**ADMIN, "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_nobody_else_acts(operated: Operated, headers: dict[str, str], status: int) -> None:
    told = list(operated.launcher.told)
    assert (await operated.post(RESTART, **headers)).status == status
    assert operated.launcher.told == told


async def test_without_keys_only_this_machine_acts_and_no_page_of_another_origin(tmp_path: Path) -> None:
    """And a stream ends when the proxy is told to: it is not one of the requests that it waits for."""
    async with aiohttp.ClientSession() as session:
        async with operated_proxy(tmp_path, cors_origins=["https://app.example"], drain_s=600.0) as one:
            stream = await session.get(f"{one.stack.url}/console/events")
            await stream.content.readuntil(b"\n\n")
            assert (await one.post(RESTART)).status == 202
            assert (await one.post(RESTART, Origin=one.stack.url)).status == 202
            assert (await one.post(RESTART, Origin="https://app.example")).json["code"] == "ORIGIN_NOT_ALLOWED"
            page = await one.stack.get("/", **HTML, Origin="https://app.example")
            assert page.headers["Vary"] == "Accept, Origin"
        async with asyncio.timeout(TIMEOUT_S):
            await stream.read()  # to its end, which a broken connection would not have


async def test_without_keys_nobody_acts_through_a_reverse_proxy(tmp_path: Path) -> None:
    """Not even through one that adds no header of its own: it passes the public Host on, or speaks HTTP/1.0."""
    async with operated_proxy(tmp_path, allowed_hosts=["public.example"]) as one:
        for headers in (
            *({name: "10.0.0.1"} for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")),
            *({name: "x"} for name in ("X-Forwarded-Host", "X-Forwarded-Proto", "X-Original-URI", "CF-Connecting-IP")),
            *({"Referer": page} for page in ("https://public.example/", "http://10.0.0.1:8080/", "http://[::1", "x")),
            *({"Host": host} for host in ("public.example", "trillama:8080", "10.0.0.1", "[fe80::1]:80")),
        ):
            assert (await one.post(RESTART, **headers)).json["code"] == "ADMIN_KEY_REQUIRED", headers
            assert (await one.state(**headers))["admin"] is False
        assert (await one.post(RESTART, Referer="http://localhost:8080/?task=code")).status == 202
        for host in ("localhost:8080", "127.0.0.2", "[::1]:80", "LOCALHOST."):
            assert (await one.post(RESTART, Host=host)).status == 202, host
        reader, writer = await asyncio.open_connection(*one.stack.url.removeprefix("http://").split(":"))
        writer.write(f"POST {RESTART} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode())
        assert b" 403 " in await reader.readline()
        writer.close()


async def test_an_admin_key_alone_leaves_the_api_open_and_closes_the_actions(tmp_path: Path) -> None:
    async with operated_proxy(tmp_path, admin_keys=["boss"]) as one:
        assert (await one.state())["admin"] is False
        assert (await one.state(Authorization="Basic x"))["admin"] is False
        assert (await one.post("/console/reload", Authorization="Bearer else")).status == 403
        assert (await one.post("/console/reload", **ADMIN)).status == 202


async def test_it_can_be_turned_off(tmp_path: Path) -> None:
    async with operated_proxy(tmp_path, console=False) as one:
        assert (await one.stack.get("/", **HTML)).body == b"Ollama is running"
        document = (await one.stack.get("/openapi.json")).body
        assert b"text/html" not in document
        for path in ("/console/state", "/console/events", "/console/static/app.js", "/docs"):
            assert (await one.stack.get(path)).status == 404
