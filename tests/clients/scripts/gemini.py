"""google-genai."""

import json
import sys

from google import genai

client = genai.Client(api_key="unused", http_options={"base_url": "http://127.0.0.1:8080"})
task = {"task_type": "RETRIEVAL_DOCUMENT"}
answer = client.models.embed_content(model="jina-embeddings-v4", contents=["a red door", "two fish"], config=task)
vectors = [embedding.values for embedding in answer.embeddings]

given = json.load(sys.stdin)
texts = given["texts"]


def ask(contents, **settings):
    return client.models.embed_content(model="jina-embeddings-v4", contents=contents, config={**task, **settings})


def embed(contents, **settings):
    return [embedding.values for embedding in ask(contents, **settings).embeddings]


found = {
    "page": vectors,
    "batch": embed(texts),
    "tokens": ask(texts).usage_metadata.prompt_token_count,
    "alone": [embed(text)[0] for text in texts],
    "short": embed(texts, output_dimensionality=128),
}
json.dump(found, sys.stdout)
