"""ollama."""

import json
import sys

import ollama

client = ollama.Client(host="http://127.0.0.1:8080")
answer = client.embed(model="jina-embeddings-v4:retrieval.passage", input=["a red door", "two fish"])
vectors = answer.embeddings

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]


def embed(texts, **fields):
    return client.embed(model="jina-embeddings-v4:retrieval.passage", input=texts, **fields)


answer = embed(texts)
found = {
    "page": vectors,
    "batch": answer.embeddings,
    "tokens": answer.prompt_eval_count,
    "alone": [embed(text).embeddings[0] for text in texts],
    "short": embed(texts, dimensions=128).embeddings,
    "empty": embed("").embeddings,
    "models": [
        row.model.removesuffix(":latest")
        for row in client.list().models
        if row.modified_at and "embedding" in client.show(row.model).capabilities
    ],
}
assert client.pull("jina-embeddings-v4").status == "success"
assert len(client.ps().models) == len(found["models"])
try:
    embed([texts[0], too_long], truncate=False)
except ollama.ResponseError as error:
    found["error"] = {"text": error.error}
json.dump(found, sys.stdout)
