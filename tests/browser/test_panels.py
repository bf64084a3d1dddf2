"""Each panel of the console shows the true numbers of a running demo."""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import orjson
import pytest

from tests.support.servers.operated import rows_of
from tests.support.servers.serve import Serve
from tests.support.servers.stack import BACKENDS, Stack

if TYPE_CHECKING:
    from playwright.async_api import Locator

    from tests.support.host.watched_page import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")
MIB = 2**20


def api(demo: Serve) -> Stack:
    return Stack(url=demo.url, models={}, engines={})


async def status(demo: Serve) -> dict[str, dict[str, object]]:
    """Each backend in `trillama status --json`."""
    code, output = await demo.command("status", "--json")
    assert code == 0, output
    return {str(one["name"]): one for one in orjson.loads(output)["backends"]}


async def test_now_shows_what_trillama_status_and_the_answers_say(console: "Watched", demo: Serve) -> None:
    page = await console.open("now")
    processes = await status(demo)
    assert await page.locator("#totals div").filter(has_text="Backends ready").locator("dd").inner_text() == "3 of 3"
    for name, task in zip(BACKENDS, ("retrieval.query", "code.query", "text-matching"), strict=True):
        answer = await api(demo).post({"input": "a", "task": task})
        process = processes[name]
        planned = process["planned_bytes"]
        assert isinstance(planned, dict)
        assert await console.value(name, "Model file") == Path(str(process["model"])).name
        assert await console.value(name, "Quantisation") == answer.headers["X-Trillama-Quantization"]
        digest = (await console.value(name, "Digest")).rstrip("…")
        assert answer.headers["X-Trillama-Model-Digest"].startswith(f"sha256:{digest}")
        assert await console.value(name, "Vector space") == answer.headers["X-Trillama-Vector-Space"]
        assert await console.value(name, "Device") == "CPU"
        memory = f"RAM {planned['RAM'] / MIB:.0f} MiB" if planned else "not planned"  # of a native engine
        assert await console.value(name, "Memory planned") == memory
        assert re.match(rf"{process['restarts']}; (last: .*; )?ready for ", await console.value(name, "Restarts"))
        assert await console.value(name, "Queue, bulk") == "0 requests, 0 tokens"
        assert await console.value(name, "Quarantined texts") == "none"


async def test_tokens_routes_and_the_sparkline_count_what_was_computed(console: "Watched", demo: Serve) -> None:
    page = await console.open("now")
    text = "the number of tokens of this text is known " * 3
    answer = await api(demo).post({"input": [f"{number} {text}" for number in range(20)], "task": "text-matching"})
    assert answer.status == 200
    (backend,) = [one for one in rows_of(await state(demo), "backends") if one["name"] == "text-matching"]
    card = page.locator("article[aria-labelledby=backend-text-matching]")
    shown = card.locator("dl > div").filter(has_text="Tokens computed").locator("dd")
    await until_text(shown, f"{backend['tokens_total']:,}")
    await card.get_by_text(re.compile(r", [1-9][\d,]* at most in ")).wait_for(timeout=30_000)
    route = next(one for one in rows_of(await state(demo), "routes") if one["route"] == "/v1/embeddings")
    row = page.locator("#routes tr").filter(has_text="/v1/embeddings")
    await until_text(row.locator("td").nth(0), f"{route['requests']:,}")


async def test_a_request_is_listed_filtered_paused_and_exported(console: "Watched", demo: Serve) -> None:
    page = await console.open("requests")
    secret = "words that nobody may read"  # its words
    sent = await api(demo).post({"input": [secret, "b"], "task": "code.query"}, **{"X-Request-ID": "listed-here"})
    await api(demo).post({"input": "a", "task": "nonsense"})
    usage = sent.json["usage"]
    assert isinstance(usage, dict)
    await page.get_by_label("Filter").first.fill("listed-here 200")
    await page.locator("#latest tr").first.wait_for()
    await page.locator("#latest tr", has_text="code.query").first.wait_for()
    cells = await page.locator("#latest tr").first.locator("td").all_inner_texts()
    assert cells[1:5] == ["/v1/embeddings", "code.query", "2", f"{usage['total_tokens']:,}"]
    assert all(re.fullmatch(r"[\d.]+ m?s", time) for time in cells[5:8])
    assert cells[8:] == ["200", "127.0.0.1"]
    assert secret not in await page.content()
    await page.get_by_label("Filter").first.fill("code.query 200")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Export as JSON").click()
    records = orjson.loads(Path(await (await download.value).path()).read_bytes())
    assert {record["usage"]["task"] for record in records} == {"code.query"}
    await page.get_by_label("Filter").first.fill("")
    await page.get_by_label("Failed only").check()
    assert "422 VALIDATION_ERROR" in await page.locator("#latest tr").first.inner_text()
    await page.get_by_label("Failed only").uncheck()
    await page.get_by_role("button", name="Pause").click()
    before = await page.locator("#listed").inner_text()
    await api(demo).post({"input": "a", "task": "code.passage"})
    assert await page.locator("#listed").inner_text() == before
    await page.get_by_role("button", name="Continue").click()
    await page.locator("#latest tr").first.filter(has_text="code.passage").wait_for()


async def test_who_sends_most_is_told(console: "Watched", demo: Serve) -> None:
    await api(demo).post({"input": "a"})
    page = await console.open("requests")
    (client,) = rows_of(await state(demo), "clients")
    row = await page.locator("#clients tr").all_inner_texts()
    assert len(row) == 1
    assert ("127.0.0.1" in row[0], "100 %" in row[0]) == (True, True)
    assert f"{client['tokens']:,}" in row[0]
    await console.open("now")
    await until_text(page.locator("#totals div").filter(has_text="Sends most").locator("dd"), "127.0.0.1, 100 %")


async def test_a_log_is_shown_as_it_grows(console: "Watched", demo: Serve) -> None:
    log = demo.logs / "code.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write("written before it was opened\n")
    page = await console.open("logs")
    await page.locator("#log-of").select_option("code")
    await page.locator("#log").get_by_text("written before it was opened").wait_for()
    with log.open("a", encoding="utf-8") as file:
        file.write("one more <b>line</b>\n")
    await page.locator("#log").get_by_text("one more <b>line</b>").wait_for()
    await page.get_by_label("Filter").last.fill("BEFORE")
    assert "one more" not in await page.locator("#log").inner_text()


async def test_the_api_panel_lists_every_path(console: "Watched", demo: Serve) -> None:
    page = await console.open("api")
    paths = (await api(demo).get("/openapi.json")).json["paths"]
    assert isinstance(paths, dict)
    await page.locator(".opblock").first.wait_for()
    shown = {path.replace("\u200b", "") for path in await page.locator(".opblock-summary-path").all_inner_texts()}
    assert shown == set(paths)
    await page.locator(".opblock-summary-control").first.click()
    await page.get_by_role("button", name="Try it out").click()
    await page.get_by_role("button", name="Execute").click()
    await page.locator(".live-responses-table .response-col_status").get_by_text("200").first.wait_for()
    await page.goto(f"{demo.url}/docs")
    await page.locator("#api .opblock").first.wait_for()


async def state(demo: Serve) -> dict[str, object]:
    async with aiohttp.ClientSession() as session, session.get(f"{demo.url}/console/state") as response:
        body = orjson.loads(await response.read())
    assert isinstance(body, dict)
    return body


async def until_text(locator: "Locator", text: str) -> None:
    async with asyncio.timeout(30):
        while await locator.inner_text() != text:
            await asyncio.sleep(0.05)
