"""A real Chromium, and one running demo for all tests of this folder; skipped where there is no browser."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from launcher.settings.config import configs_dir
from proxy.contract.settings_file import read_toml
from tests.support.host.watched_page import CHROMIUM_FLAGS, Watched, chromium, watched
from tests.support.servers.serve import Serve, quick_engine, trillama_serve

if TYPE_CHECKING:
    from playwright.async_api import Browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator["Browser"]:
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: make test-browser")
    if (program := chromium()) is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    async with playwright.async_playwright() as driver:
        running = await driver.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield running
        await running.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo(browser: "Browser") -> AsyncIterator[Serve]:
    """`trillama serve --demo --tiny`: three made-up models that know shared words."""
    slow = {"supervision": {"quick_delay_s": 5.0}}  # the page is to be seen while a backend is down
    config = {**read_toml(configs_dir() / "demo-tiny.toml"), **slow, "max_input_tokens": 1024, "engine": quick_engine()}
    async with trillama_serve(config) as serve:
        yield serve


@pytest_asyncio.fixture(loop_scope="session")
async def console(browser: "Browser", demo: Serve) -> AsyncIterator[Watched]:
    """The demo's console in a window of its own, once it shows the state."""
    async with watched(browser, demo.url) as one:
        yield one
