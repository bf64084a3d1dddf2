"""What an operator does in the console happens to the running processes, and the console says how it went."""

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.servers.serve import Serve
from tests.support.servers.stack import Stack

if TYPE_CHECKING:
    from tests.support.host.watched_page import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")
LONG_MS = 60_000


async def test_a_paused_backend_keeps_its_requests_until_it_is_resumed(console: "Watched", demo: Serve) -> None:
    page = await console.open("now")
    card = page.locator("article[aria-labelledby=backend-code]")
    await page.get_by_role("button", name="Pause code").click()
    await card.locator(".badge", has_text="paused").wait_for(timeout=LONG_MS)
    assert await card.locator(".reason").inner_text() == "An operator has paused it; its requests wait."
    await page.locator("#actions li", has_text="pause code: done").wait_for(timeout=LONG_MS)
    stack = Stack(url=demo.url, models={}, engines={})
    waiting = asyncio.create_task(stack.post({"input": "a", "task": "code.query"}))
    assert (await stack.post({"input": "a", "task": "text-matching"})).status == 200
    assert not waiting.done()
    await page.get_by_role("button", name="Resume code").click()
    await card.locator(".badge", has_text="ready").wait_for(timeout=LONG_MS)
    assert (await waiting).status == 200


async def test_a_restart_gives_another_process(console: "Watched", demo: Serve) -> None:
    before = demo.child("code.sock").pid
    page = await console.open("now")
    await page.get_by_role("button", name="Restart code").click()
    await page.locator("#actions li", has_text="restart code: done").wait_for(timeout=LONG_MS)
    assert demo.child("code.sock").pid != before
    await page.locator("article[aria-labelledby=backend-code] .badge", has_text="ready").wait_for(timeout=LONG_MS)


async def test_why_a_backend_is_down_is_told(console: "Watched", demo: Serve) -> None:
    page = await console.open("now")
    card = page.locator("article[aria-labelledby=backend-retrieval]")
    await demo.kill("retrieval.sock")
    await card.locator(".reason", has_text=re.compile("retrieval")).wait_for(timeout=LONG_MS)
    await page.locator("#totals .bad", has_text="2 of 3, retrieval restarting").wait_for(timeout=LONG_MS)
    await card.locator(".badge", has_text="ready").wait_for(timeout=LONG_MS)
    assert re.match(r"1; last: .*retrieval.*; ready for", await console.value("retrieval", "Restarts"))


async def test_a_reload_hands_over_and_the_page_follows(console: "Watched", demo: Serve) -> None:
    page = await console.open("now")
    text = demo.config.read_text(encoding="utf-8")
    demo.config.write_text(text.replace("notice = ", 'notice = "another notice" # ', 1), encoding="utf-8")
    await page.get_by_role("button", name="Reload the configuration").click()
    await page.locator("#notice", has_text="another notice").wait_for(timeout=LONG_MS)
    await page.locator("#connection.good").wait_for(timeout=LONG_MS)
    demo.config.write_text("port = 1\n" + text.replace("port = ", "# port = ", 1), encoding="utf-8")
    await page.get_by_role("button", name="Reload the configuration").click()
    await page.locator("#actions li", has_text="another port needs a restart").wait_for(timeout=LONG_MS)
    demo.config.write_text(text, encoding="utf-8")
