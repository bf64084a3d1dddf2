"""Haystack's embedders for Jina."""

import json
import sys

from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder, JinaTextEmbedder

server = {"base_url": "http://127.0.0.1:8080/v1/embeddings", "api_key": Secret.from_token("unused")}
embedder = JinaDocumentEmbedder(model="jina-embeddings-v4", task="retrieval.passage", progress_bar=False, **server)
answer = embedder.run([Document(content="a red door"), Document(content="two fish")])
vectors = [document.embedding for document in answer["documents"]]

asker = JinaTextEmbedder(model="jina-embeddings-v4", task="retrieval.query", **server)
question = asker.run("which colour is the door?")["embedding"]

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]


def embed(texts, **settings):
    one = JinaDocumentEmbedder(
        model="jina-embeddings-v4", task="retrieval.passage", batch_size=5, progress_bar=False, **settings, **server
    )
    answer = one.run([Document(content=text) for text in texts])
    return [document.embedding for document in answer["documents"]], answer["meta"]["usage"]["total_tokens"]


alone = JinaTextEmbedder(model="jina-embeddings-v4", task="retrieval.passage", **server)
batch, tokens = embed(texts)
found = {
    "page": vectors,
    "question": [question],
    "batch": batch,
    "tokens": tokens,
    "alone": [alone.run(text)["embedding"] for text in texts],
    "short": embed(texts, dimensions=128)[0],
}
try:
    embed([texts[0], too_long])
except RuntimeError as error:
    found["error"] = {"text": str(error)}
json.dump(found, sys.stdout)
