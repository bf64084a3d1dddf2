"""A page in a real browser, which may not complain, nor ask any other server for anything."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request

# The last one: names as an attacker's or a company's DNS would resolve them.
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP *.example 127.0.0.1"),
)
PANELS = ("now", "requests", "logs", "playground", "api")
DESKTOP, PHONE = (1280, 860), (375, 740)


def chromium() -> str | None:
    """The browser's program; None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass  # without slots: playwright keeps a note on the owner of a handler
class Watched:
    """`complaints` are errors in the browser's console, among them breaches of the page's policy."""

    page: "Page"
    url: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    async def open(self, panel: str = "now") -> "Page":
        """Show that panel, once the state has arrived."""
        await self.page.goto(f"{self.url}/#{panel}")
        await self.page.locator("#connection.good").wait_for()
        await self.page.locator(f"#{panel}").wait_for()
        return self.page

    async def value(self, card: str, label: str) -> str:
        """What the card of that backend says."""
        row = self.page.locator(f"article[aria-labelledby=backend-{card}] dl > div").filter(
            has=self.page.get_by_text(label, exact=True)
        )
        text: str = await row.locator("dd").inner_text()
        return text

    def on_console(self, message: "ConsoleMessage") -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def on_error(self, error: "Error") -> None:
        self.complaints.append(str(error))

    def on_request(self, request: "Request") -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.foreign.append(request.url)


@asynccontextmanager
async def watched(
    browser: "Browser", url: str, *, size: tuple[int, int] = DESKTOP, dark: bool = False
) -> AsyncIterator[Watched]:
    """A page of that server for the block; afterwards nothing was wrong and nobody else was asked."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", locale="en-GB"
    )
    one = Watched(await context.new_page(), url)
    one.page.on("console", one.on_console)
    one.page.on("pageerror", one.on_error)
    one.page.on("request", one.on_request)
    try:
        yield one
    finally:
        await context.close()
    assert not one.complaints + one.foreign, one.complaints + one.foreign
