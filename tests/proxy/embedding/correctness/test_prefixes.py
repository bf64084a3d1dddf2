"""The exact text that each backend receives, read off the wire between the proxy and real llama-servers."""

import orjson

from tests.support.engines.engine import LlamaServer
from tests.support.engines.recording import recorded
from tests.support.servers.stack import FAMILY_FILE, Stack, family_of

FAMILY = family_of(FAMILY_FILE)


async def test_every_row_of_the_task_table_sends_its_prefix_and_text_to_its_backend(served: Stack) -> None:
    text = "Grüße, 文本 <|im_start|> 🎉"
    async with recorded(served, served.models) as through:
        for task, row in FAMILY.tasks.items():
            through.clear()
            assert (await through.stack.post({"input": text, "task": task})).status == 200
            texts = {
                name: [await _text(served.engines[name], ids) for ids in inputs]
                for name, inputs in through.received.items()
            }
            assert texts == {name: [row.prefix + text] if name == row.backend else [] for name in texts}, task


async def _text(engine: LlamaServer, ids: list[int]) -> str:
    return str(orjson.loads(await engine.post("/detokenize", {"tokens": ids}))["content"])
