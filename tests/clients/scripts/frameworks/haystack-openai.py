"""Haystack's own embedders for OpenAI."""

import json
import sys

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret

server = {"api_base_url": "http://127.0.0.1:8080/v1", "api_key": Secret.from_token("unused")}
embedder = OpenAIDocumentEmbedder(model="jina-embeddings-v4:retrieval.passage", progress_bar=False, **server)
answer = embedder.run([Document(content="a red door"), Document(content="two fish")])
vectors = [document.embedding for document in answer["documents"]]

asker = OpenAITextEmbedder(model="jina-embeddings-v4:retrieval.query", **server)
question = asker.run("which colour is the door?")["embedding"]

texts = json.load(sys.stdin)["texts"]


def embed(embedder):
    answer = embedder.run([Document(content=text) for text in texts])
    return [document.embedding for document in answer["documents"]], answer["meta"]["usage"]["total_tokens"]


model = "jina-embeddings-v4:retrieval.passage"
alone = OpenAITextEmbedder(model=model, **server)
batch, tokens = embed(embedder)
short = OpenAIDocumentEmbedder(model=model, dimensions=128, batch_size=5, progress_bar=False, **server)
found = {
    "page": vectors,
    "question": [question],
    "batch": batch,
    "tokens": tokens,
    "alone": [alone.run(text)["embedding"] for text in texts],
    "short": embed(short)[0],
}
json.dump(found, sys.stdout)
