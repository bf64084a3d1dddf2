"""OpenAI's Python package, asynchronous: many questions at a time."""

import asyncio
import json
import sys

import openai
from openai import AsyncOpenAI

client = AsyncOpenAI(base_url="http://127.0.0.1:8080/v1", api_key="unused")


async def embed(*texts, **fields):
    answer = await client.embeddings.create(model="jina-embeddings-v4:retrieval.passage", input=texts, **fields)
    return [row.embedding for row in answer.data]


async def main(texts, too_long):
    page = await embed("a red door", "two fish")
    alone = await asyncio.gather(*(embed(text) for text in texts))
    found = {
        "page": page,
        "batch": await embed(*texts),
        "alone": [vector for (vector,) in alone],
        "short": await embed(*texts, dimensions=128),
    }
    try:
        await embed(texts[0], too_long)
    except openai.BadRequestError as error:
        found["error"] = {"text": str(error), "code": error.code}
    return found


json.dump(asyncio.run(main(**json.load(sys.stdin))), sys.stdout)
