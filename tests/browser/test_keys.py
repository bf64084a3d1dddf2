"""Keys in the page, and pages of other origins: CORS, preflight and names, by a browser's own rules."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.host.watched_page import watched
from tests.support.servers.operated import Operated, operated_proxy
from tests.support.servers.stack import Stack, small_family, stack, unused_port

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="session")
CALL = """async ([url, headers]) => {
    try {
        const response = await fetch(url, {method: "POST", body: '{"input": "a"}', headers});
        return [response.status, response.headers.get("X-Trillama-Task"), (await response.json()).code ?? ""];
    } catch (error) { return [0, null, error.name]; }
}"""
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def site(browser: "Browser", host: str, port: int) -> AsyncIterator["Page"]:
    """An empty page of another site."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!DOCTYPE html><title>another site</title>", content_type="text/html")

    app = web.Application()
    app.add_routes([web.get("/", page)])
    runner = web.AppRunner(app)
    await runner.setup()
    context = await browser.new_context()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        opened = await context.new_page()
        await opened.goto(f"http://{host}:{port}/")
        yield opened
    finally:
        await context.close()
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def allowed_port() -> int:
    return unused_port()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def keyed(tmp_path_factory: pytest.TempPathFactory, allowed_port: int) -> AsyncIterator[Stack]:
    """A server with a key and real vectors, which one other site may use."""
    family, models = small_family(tmp_path_factory.mktemp("keyed"))
    origins = [f"http://app.example:{allowed_port}"]
    async with stack("embedded", models, family=family, api_keys=["right"], cors_origins=origins) as one:
        yield one


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({**JSON, "Authorization": "Bearer right"}, [200, "retrieval.passage", ""]),
        ({**JSON, "X-API-Key": "right"}, [200, "retrieval.passage", ""]),
        ({**JSON, "Authorization": "Bearer wrong"}, [401, None, "AUTH_INVALID_API_KEY"]),
        (JSON, [401, None, "AUTH_MISSING_API_KEY"]),
    ],
)
async def test_an_allowed_site_uses_the_server_with_its_key_and_reads_every_answer(
    browser: "Browser", keyed: Stack, allowed_port: int, headers: dict[str, str], answer: list[object]
) -> None:
    async with site(browser, "app.example", allowed_port) as page:
        status, task, code = await page.evaluate(CALL, [f"{keyed.url}/v1/embeddings", headers])
    assert [status, bool(task), code] == [answer[0], answer[1] is not None, answer[2]]


async def test_another_site_reads_nothing_not_even_with_the_key(browser: "Browser", keyed: Stack) -> None:
    async with site(browser, "evil.example", unused_port()) as page:
        for headers in ({**JSON, "Authorization": "Bearer right"}, {}):
            assert await page.evaluate(CALL, [f"{keyed.url}/v1/embeddings", headers]) == [0, None, "TypeError"]


async def test_without_keys_a_site_and_a_name_must_be_known(browser: "Browser", tmp_path: Path) -> None:
    port = unused_port()
    origins = [f"http://app.example:{port}"]
    async with operated_proxy(tmp_path, cors_origins=origins, allowed_hosts=["gpu.example"]) as one:
        url = f"{one.stack.url}/v1/embeddings"
        async with site(browser, "app.example", port) as page:
            assert (await page.evaluate(CALL, [url, JSON]))[0] == 503  # read by the page: the backends are down
        async with site(browser, "evil.example", unused_port()) as page:
            assert await page.evaluate(CALL, [url, JSON]) == [0, None, "TypeError"]
        async with watched(browser, one.stack.url.replace("127.0.0.1", "gpu.example")) as known:
            await known.open("now")
        context = await browser.new_context()
        page = await context.new_page()
        rebound = await page.goto(one.stack.url.replace("127.0.0.1", "rebound.example"))
        assert rebound is not None
        assert rebound.status == 403
        await context.close()


async def test_the_page_asks_for_the_key_once_and_keeps_it_in_its_tab(browser: "Browser", tmp_path: Path) -> None:
    async with operated_proxy(tmp_path, launched=True, api_keys=["client"], admin_keys=["boss"]) as one:
        await keys_in_the_page(browser, one)


async def keys_in_the_page(browser: "Browser", one: Operated) -> None:
    async with watched(browser, one.stack.url) as console:
        page = console.page
        await page.goto(console.url)
        dialog = page.locator("dialog[open]")
        await dialog.wait_for()
        await page.get_by_label("Key", exact=True).fill("wrong")
        await page.get_by_role("button", name="Use it").click()
        await dialog.get_by_text("is not one of those that this server accepts").wait_for()
        await page.get_by_label("Key", exact=True).fill("client")
        await page.get_by_role("button", name="Use it").click()
        await page.locator("#connection.good").wait_for()
        assert await page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        assert not await page.get_by_role("button", name="Restart code").is_visible()
        await page.reload()
        await page.locator("#connection.good").wait_for()
        assert not await dialog.is_visible()
        await page.get_by_role("button", name="Unlock actions").click()
        await page.get_by_label("Key", exact=True).fill("boss")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Restart code").click()
        await page.locator("#actions li", has_text="restart code: done").wait_for()
        assert one.launcher.told == ["/backends/code/restart"]
        assert "llama-server ended with signal 9" in await page.locator(".reason").first.inner_text()
        console.complaints = [text for text in console.complaints if "401" not in text]  # the browser's own lines
