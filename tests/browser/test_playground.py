"""The playground says of texts what their vectors say, cuts them as the model does, and gives code that runs."""

import asyncio
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from proxy.types import Matrix
from tests.support.requests.client import embed
from tests.support.servers.serve import Serve
from tests.support.servers.stack import Stack

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.support.host.watched_page import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")
TEXTS = ["overheating lightsaber", "What do I do if my lightsaber overheats?", "good espresso beans"]


async def cosines(demo: Serve, **fields: object) -> Matrix:
    """The matrix of TEXTS by the API."""
    rows = await embed(Stack(url=demo.url, models={}, engines={}), TEXTS, **fields)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows @ rows.T, dtype=np.float32)


async def matrices(page: "Page") -> list[Matrix]:
    """The heat maps that are shown."""
    return [
        np.array([[float(cell) for cell in await row.locator("td").all_inner_texts()] for row in await rows.all()])
        for rows in [table.locator("tbody tr") for table in await page.locator("table.heat").all()]
    ]


async def compute(page: "Page") -> None:
    await page.get_by_role("button", name="Compute").click()
    await page.locator("#play-status", has_text="tokens in").wait_for()
    await page.locator("#pieces li").first.wait_for()


async def test_texts_are_compared_as_their_vectors_are(console: "Watched", demo: Serve) -> None:
    page = await console.open("playground")
    await page.get_by_label("Texts, one a line").fill("\n".join(TEXTS))
    await page.locator("#task-a").select_option("text-matching")
    await compute(page)
    (shown,) = await matrices(page)
    assert np.abs(shown - await cosines(demo, task="text-matching")).max() < 0.0006
    assert "Nearest are 1 and 2" in await page.locator(".verdict").inner_text()


@pytest.mark.parametrize(
    ("control", "value", "fields"),
    [
        ("task", "code.query", {"task": "code.query"}),
        ("dimensions", "64", {"task": "text-matching", "dimensions": 64}),
        ("encoding", "base64", {"task": "text-matching"}),
        ("late", "", {"task": "text-matching", "late_chunking": True}),
    ],
)
async def test_a_second_setting_is_shown_beside_the_first(
    console: "Watched", demo: Serve, control: str, value: str, fields: dict[str, object]
) -> None:
    page = await console.open("playground")
    await page.get_by_label("Texts, one a line").fill("\n".join(TEXTS))
    await page.locator("#use-b").check()
    for setting in "ab":
        await page.locator(f"#task-{setting}").select_option("text-matching")
    if control == "late":
        await page.locator("#late-b").check()
    elif control == "dimensions":
        await page.locator("#dimensions-b").fill(value)
    else:
        await page.locator(f"#{control}-b").select_option(value)
    await compute(page)
    first, second = await matrices(page)
    assert np.abs(first - await cosines(demo, task="text-matching")).max() < 0.0006
    assert np.abs(second - await cosines(demo, **fields)).max() < 0.0006
    assert "B changes most between" in await page.locator(".verdict").inner_text()


@pytest.mark.parametrize("encoding", ["binary", "ubinary"])
async def test_bits_are_read(console: "Watched", demo: Serve, encoding: str) -> None:
    page = await console.open("playground")
    await page.get_by_label("Texts, one a line").fill("\n".join(TEXTS))
    await page.locator("#task-a").select_option("text-matching")
    await page.locator("#encoding-a").select_option(encoding)
    await compute(page)
    bits = np.where(await embed(Stack(url=demo.url, models={}, engines={}), TEXTS, task="text-matching") > 0, 1.0, -1.0)
    (shown,) = await matrices(page)
    assert np.abs(shown - bits @ bits.T / bits.shape[1]).max() < 0.0006


async def test_the_passage_that_answers_is_first(console: "Watched") -> None:
    page = await console.open("playground")
    await page.get_by_label("Which passage answers the query?").check()
    await page.get_by_label("Query", exact=True).fill("overheating lightsaber")
    await page.get_by_label("Passages, one a line").fill("good espresso beans\nMy lightsaber is overheating\nParis")
    await compute(page)
    rows = await page.locator("table.ranking tbody tr").all_inner_texts()
    assert len(rows) == 3
    assert rows[0].startswith("1")
    assert rows[0].endswith("My lightsaber is overheating")
    scores = [float(row.split("\t")[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)


async def test_the_pieces_are_the_tokens_that_are_counted(console: "Watched", demo: Serve) -> None:
    page = await console.open("playground")
    await page.get_by_label("Texts, one a line").fill("naïve 👩‍🔬")
    await page.locator("#task-a").select_option("retrieval.query")
    await compute(page)
    answer = await Stack(url=demo.url, models={}, engines={}).post({"input": "naïve 👩‍🔬", "task": "retrieval.query"})
    usage = answer.json["usage"]
    assert isinstance(usage, dict)
    item = page.locator("#pieces li")
    assert await item.locator(".count").inner_text() == f"{usage['total_tokens']} tokens"
    assert await item.locator(".piece").count() == usage["total_tokens"]
    assert "".join(await item.locator(".piece.prefix").all_inner_texts()).strip() == "Query:"


async def test_an_error_is_told_in_the_servers_words(console: "Watched") -> None:
    page = await console.open("playground")
    await page.locator("#dimensions-a").evaluate("field => { field.max = ''; field.value = 99999; }")
    await page.get_by_role("button", name="Compute").click()
    await page.locator("#play-status", has_text="dimensions").wait_for()
    assert any("422" in complaint for complaint in console.complaints)
    console.complaints.clear()  # the browser's own line about the status


@pytest.mark.parametrize("language", ["curl", "python", "javascript"])
async def test_the_code_runs_as_it_is_copied(console: "Watched", language: str) -> None:
    page = await console.open("playground")
    await page.get_by_label("Texts, one a line").fill('it\'s: true\n"quoted" $HOME \\ text')
    await page.locator("#late-a").check()
    await page.get_by_label("Copy as").select_option(language)
    await page.get_by_role("button", name="Copy", exact=True).click()
    code = await page.locator("#code").inner_text()
    assert "s: true" in code  # a text is not Python's
    if language == "javascript":
        vectors = await page.evaluate(f"(async () => {{ {code}\nreturn vectors.length; }})()")
        assert vectors == 2
        return
    script = f"{REQUESTS}{code}\nprint('embedding', len(vectors))"
    argv = ["bash", "-c", code] if language == "curl" else [sys.executable, "-c", script]
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=nowhere)
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"embedding" in output


# The package `requests`, as far as the code needs it: it is not one of ours.
REQUESTS = """
import json, sys, types, urllib.request
encode = json.dumps
class Answer:
    def __init__(self, body): self.body = body
    def json(self): return json.loads(self.body)
def post(url, json=None, headers=None):
    data, kind = encode(json).encode(), {"Content-Type": "application/json", **(headers or {})}
    return Answer(urllib.request.urlopen(urllib.request.Request(url, data, kind)).read())
sys.modules["requests"] = types.SimpleNamespace(post=post)
"""
