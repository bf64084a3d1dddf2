"""llama-index-embeddings-openai; `model_name`, because its `model` takes only OpenAI's own."""

import asyncio
import json
import sys

import openai
from llama_index.embeddings.openai import OpenAIEmbedding

server = {"api_base": "http://127.0.0.1:8080/v1", "api_key": "unused"}
embeddings = OpenAIEmbedding(model_name="jina-embeddings-v4:retrieval.passage", **server)
vectors = embeddings.get_text_embedding_batch(["a red door", "two fish"])

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]
short = OpenAIEmbedding(model_name="jina-embeddings-v4:retrieval.passage", dimensions=128, embed_batch_size=5, **server)
found = {
    "page": vectors,
    "batch": embeddings.get_text_embedding_batch(texts),
    "alone": [embeddings.get_query_embedding(text) for text in texts],
    "short": short.get_text_embedding_batch(texts),
    "float": asyncio.run(embeddings.aget_text_embedding_batch(texts)),
}
try:
    embeddings.get_text_embedding_batch([texts[0], too_long])
except openai.BadRequestError as error:
    found["error"] = {"text": str(error), "code": error.code}
json.dump(found, sys.stdout)
