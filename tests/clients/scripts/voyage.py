"""voyageai."""

import json
import sys

import voyageai

client = voyageai.Client(api_key="unused", base_url="http://127.0.0.1:8080/v1")
answer = client.embed(["a red door", "two fish"], model="jina-embeddings-v4", input_type="document")
vectors = answer.embeddings

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]


def embed(texts, **fields):
    return client.embed(texts, model="jina-embeddings-v4", input_type="document", **fields)


answer = embed(texts)
found = {
    "page": vectors,
    "batch": answer.embeddings,
    "tokens": answer.total_tokens,
    "alone": [embed([text]).embeddings[0] for text in texts],
    "short": embed(texts, output_dimension=128).embeddings,
    "float": embed(texts, output_dtype="float").embeddings,
    "ubinary": embed(texts, output_dtype="ubinary").embeddings,
    "binary": embed(texts, output_dtype="binary").embeddings,
}
try:
    embed([texts[0], too_long], truncation=False)
except voyageai.error.InvalidRequestError as error:
    found["error"] = {"text": str(error)}
json.dump(found, sys.stdout)
