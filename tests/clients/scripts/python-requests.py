"""Plain HTTP, with the body of Jina's own examples."""

import json
import sys

import requests

url = "http://127.0.0.1:8080/v1/embeddings"
body = {"model": "jina-embeddings-v4", "task": "retrieval.passage", "input": [{"text": "a red door"}, "two fish"]}
answer = requests.post(url, json=body, timeout=60).json()
vectors = [row["embedding"] for row in answer["data"]]

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]


def embed(texts, **fields):
    body = {"model": "jina-embeddings-v4", "task": "retrieval.passage", "normalized": True, "input": texts, **fields}
    return requests.post(url, json=body, timeout=60)


def rows(answer):
    return [row["embedding"] for row in answer.json()["data"]]


answer = embed([{"text": text} for text in texts])
found = {
    "page": vectors,
    "batch": rows(answer),
    "tokens": answer.json()["usage"]["total_tokens"],
    "alone": [rows(embed(text))[0] for text in texts],
    "short": rows(embed(texts, dimensions=128)),
    "ubinary": rows(embed(texts, embedding_type="ubinary")),
    "binary": rows(embed(texts, embedding_type="binary")),
    "empty": rows(embed([""])),
}
refused = embed([texts[0], too_long])
try:
    refused.raise_for_status()
except requests.HTTPError:
    found["error"] = {"text": refused.json()["detail"], "code": refused.json()["code"]}
json.dump(found, sys.stdout)
