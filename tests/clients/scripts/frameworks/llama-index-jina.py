"""llama-index-embeddings-jinaai."""

# ruff: noqa: SLF001 # the package has no public name for its address

import asyncio
import json
import sys

from llama_index.embeddings.jinaai import JinaEmbedding

embeddings = JinaEmbedding(model="jina-embeddings-v4", api_key="unused", task="retrieval.passage")
embeddings._api.api_url = "http://127.0.0.1:8080/v1/embeddings"
vectors = embeddings.get_text_embedding_batch(["a red door", "two fish"])

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]


def other(**settings):
    client = JinaEmbedding(model="jina-embeddings-v4", api_key="unused", task="retrieval.passage", **settings)
    client._api.api_url = embeddings._api.api_url
    return client


found = {
    "page": vectors,
    "batch": embeddings.get_text_embedding_batch(texts),
    "alone": [embeddings.get_query_embedding(text) for text in texts],
    "short": other(dimensions=128).get_text_embedding_batch(texts),
    "float": asyncio.run(embeddings.aget_text_embedding_batch(texts)),
    "bits": other(encoding_documents="ubinary").get_text_embedding_batch(texts),
    "bits_of_binary": other(encoding_documents="binary").get_text_embedding_batch(texts),
    "empty": [embeddings.get_query_embedding("")],
}
try:
    embeddings.get_text_embedding_batch([texts[0], too_long])
except RuntimeError as error:
    found["error"] = {"text": str(error)}
json.dump(found, sys.stdout)
