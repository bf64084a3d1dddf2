"""`make screenshots`: the pictures of docs/console.md and of the README, of a running demo in a real Chromium."""

import asyncio
from pathlib import Path

import aiohttp
from playwright.async_api import Browser, Page, async_playwright

from launcher.settings.config import configs_dir
from proxy.contract.settings_file import read_toml
from tests.support.host.watched_page import CHROMIUM_FLAGS, chromium, watched
from tests.support.servers.serve import trillama_serve

FOLDER = Path(__file__).parents[2] / "docs" / "console"
KEYS = ("of the search page", "of the nightly index", "of the chat")
SIZE = (1180, 780)
TASKS = ("retrieval.query", "retrieval.passage", "code.query", "text-matching")
TEXTS = ("overheating lightsaber", "a lightsaber that got too hot", "the best espresso beans")
LOAD_S = 45.0


async def main() -> None:
    config = {**read_toml(configs_dir() / "demo-tiny.toml"), "max_input_tokens": 1024}
    keys = {"proxy": {"api_keys": list(KEYS), "admin_keys": ["operator"]}}
    FOLDER.mkdir(exist_ok=True)
    async with async_playwright() as driver, trillama_serve({**config, **keys}) as serve:
        browser = await driver.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        await load(serve.url)
        await take_all(browser, serve.url)
        await browser.close()


async def load(url: str) -> None:
    """Requests of three clients for a while, so that there is something to see."""
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for number, key in enumerate(KEYS):
            tasks.create_task(send(session, url, key, texts=(1, 12, 3)[number]))


async def send(session: aiohttp.ClientSession, url: str, key: str, texts: int) -> None:
    loop = asyncio.get_running_loop()
    started, count = loop.time(), 0
    while loop.time() - started < LOAD_S:
        count += 1
        task = "nonsense" if count % 17 == 16 else TASKS[(count + texts) % len(TASKS)]
        body = {"input": [f"text {count} {number} of a client" for number in range(texts)], "task": task}
        async with session.post(
            f"{url}/v1/embeddings", json=body, headers={"Authorization": f"Bearer {key}"}
        ) as response:
            await response.read()
        await asyncio.sleep(0.25 * (count % 4))


async def take_all(browser: Browser, url: str) -> None:
    for dark in (False, True):
        async with watched(browser, url, size=SIZE, dark=dark) as one:
            await one.page.add_init_script("sessionStorage.setItem('trillama-key', 'operator')")
            page = await one.open("now")
            if not dark:
                await shoot(page, "now")
                await one.open("requests")
                await shoot(page, "requests")
            else:
                await one.open("playground")
                await page.get_by_label("Texts, one a line").fill("\n".join(TEXTS))
                await page.locator("#use-b").check()
                await page.get_by_role("button", name="Compute").click()
                await page.locator("#pieces li").first.wait_for()
                await shoot(page, "playground")


async def shoot(page: Page, name: str) -> None:
    await page.wait_for_timeout(1200)  # for one more second of the stream
    await page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    asyncio.run(main())
