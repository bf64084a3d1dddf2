"""The console for everybody: screen readers, keyboards, phones, light and dark."""

from typing import TYPE_CHECKING

import pytest

from tests.support.host.watched_page import DESKTOP, PANELS, PHONE, watched
from tests.support.servers.serve import Serve

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.support.host.watched_page import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
NAME = "c => c.ariaLabel || c.textContent.trim() || c.labels?.[0]?.textContent.trim()"
NOT_OURS = {"exclude": [["#viewer"]]}  # Swagger UI's own markup


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
async def test_axe_finds_nothing_in_any_panel(
    browser: "Browser", demo: Serve, size: tuple[int, int], dark: bool
) -> None:
    axe = pytest.importorskip("axe_playwright_python.async_playwright").Axe()
    async with watched(browser, demo.url, size=size, dark=dark) as one:
        for panel in PANELS:
            page = await one.open(panel)
            if panel == "api":
                await page.locator(".opblock").first.wait_for()
            if panel == "playground":
                await page.locator("#use-b").check()
                await page.get_by_role("button", name="Compute").click()
                await page.locator("#pieces li").first.wait_for()
            found = await axe.run(page, context=NOT_OURS, options=RULES)
            assert found.violations_count == 0, found.generate_report()


async def test_nothing_is_wider_than_a_phone(browser: "Browser", demo: Serve) -> None:
    async with watched(browser, demo.url, size=PHONE) as one:
        for panel in PANELS:
            page = await one.open(panel)
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE[0], panel


async def test_it_is_used_by_keyboard_alone(console: "Watched") -> None:
    page = console.page
    await page.goto(console.url)  # with a panel's name in the address the focus would start there
    await page.locator("#connection.good").wait_for()
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "now"
    await page.locator(".skip").focus()
    for name in ("Now", "Requests", "Logs", "Playground"):
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == name
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    await page.keyboard.press("Enter")
    await page.locator("#playground").wait_for()
    assert await page.locator("nav a[aria-current=page]").inner_text() == "Playground"
    seen = set[str]()
    for _ in range(40):
        await page.keyboard.press("Tab")
        seen.add(await page.evaluate("document.activeElement.id || document.activeElement.value || ''"))
        if "texts" in seen:
            break
    await page.keyboard.press("Control+Enter")
    await page.locator("table.heat").wait_for()


async def test_each_control_has_a_name(console: "Watched") -> None:
    for panel in PANELS[:-1]:
        page = await console.open(panel)
        for control in await page.locator("button:visible, input:visible, select:visible, textarea:visible").all():
            assert await control.evaluate(NAME), await control.evaluate("c => c.outerHTML")
