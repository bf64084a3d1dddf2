"""The exact text that each backend receives, read off the wire between the proxy and real llama-servers."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
from aiohttp import web

from tests.engine import LlamaServer
from tests.proxy.stack import BATCH_TOKENS, FAMILY_FILE, Stack, family_of, proxy

FAMILY = family_of(FAMILY_FILE)


@asynccontextmanager
async def recording(engine: LlamaServer, inputs: list[list[int]]) -> AsyncIterator[str]:
    """A way through to `engine` that adds to `inputs` the token ids of each text to embed; yields its URL."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(engine.socket))) as session:

        async def forward(request: web.Request) -> web.Response:
            body = await request.read()
            if request.path == "/v1/embeddings":
                inputs.extend(orjson.loads(body)["input"])
            async with session.request(request.method, f"http://engine{request.path}", data=body) as answer:
                return web.Response(body=await answer.read(), status=answer.status)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        with tempfile.TemporaryDirectory(prefix="trillama-") as folder:
            socket = Path(folder, "r.sock")
            await web.UnixSite(runner, str(socket)).start()
            try:
                yield f"unix://{socket}"
            finally:
                await runner.cleanup()


async def test_every_row_of_the_task_table_sends_its_prefix_and_text_to_its_backend(served: Stack) -> None:
    received: dict[str, list[list[int]]] = {name: [] for name in served.engines}
    text = "Grüße, 文本 <|im_start|> 🎉"
    async with AsyncExitStack() as exits:
        backends = {}
        for name, engine in served.engines.items():
            url = await exits.enter_async_context(recording(engine, received[name]))
            backends[name] = {"url": url, "batch_tokens": BATCH_TOKENS, "model_file": str(served.models[name])}
        url = await exits.enter_async_context(proxy({"family": str(FAMILY_FILE), "backends": backends}))
        through = Stack(url=url, models=served.models, engines=served.engines)
        for task, row in FAMILY.tasks.items():
            for inputs in received.values():
                inputs.clear()
            assert (await through.post({"input": text, "task": task})).status == 200
            texts = {name: [await _text(served.engines[name], ids) for ids in received[name]] for name in received}
            assert texts == {name: [row.prefix + text] if name == row.backend else [] for name in received}, task


async def _text(engine: LlamaServer, ids: list[int]) -> str:
    return str(orjson.loads(await engine.post("/detokenize", {"tokens": ids}))["content"])
