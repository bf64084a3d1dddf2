"""OpenAI's Python package, asking while the models still load: it waits for as long as `Retry-After` says."""

import json
import sys

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="unused", max_retries=20)
answer = client.embeddings.with_raw_response.create(
    model="jina-embeddings-v4:retrieval.passage", input=["a red door", "two fish"]
)
vectors = [row.embedding for row in answer.parse().data]
json.dump({"page": vectors, "retries": answer.retries_taken}, sys.stdout)
