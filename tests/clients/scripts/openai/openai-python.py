"""OpenAI's Python package."""

import json
import sys

import openai
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="unused")
answer = client.embeddings.create(model="jina-embeddings-v4:retrieval.passage", input=["a red door", "two fish"])
vectors = [row.embedding for row in answer.data]

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]


def embed(texts, **fields):
    answer = client.embeddings.create(model="jina-embeddings-v4", input=texts, **fields)
    return [row.embedding for row in answer.data], answer.usage.total_tokens


passage = {"extra_body": {"task": "retrieval.passage"}}
batch, tokens = embed(texts, **passage)
found = {
    "page": vectors,
    "batch": batch,
    "tokens": tokens,
    "alone": [embed(text, **passage)[0][0] for text in texts],
    "short": embed(texts, dimensions=128, **passage)[0],
    "float": embed(texts, encoding_format="float", **passage)[0],
    "ubinary": embed(texts, extra_body={"task": "retrieval.passage", "embedding_type": "ubinary"})[0],
    "empty": embed("", **passage)[0],
    "models": [model.id for model in client.models.list()],
}
try:
    embed([texts[0], too_long])
except openai.BadRequestError as error:
    found["error"] = {"text": str(error), "code": error.code}
json.dump(found, sys.stdout)
