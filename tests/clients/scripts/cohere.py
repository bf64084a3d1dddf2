"""cohere."""

import json
import sys

import cohere

client = cohere.ClientV2(api_key="unused", base_url="http://127.0.0.1:8080")
task = {"model": "jina-embeddings-v4", "input_type": "search_document"}
vectors = client.embed(texts=["a red door", "two fish"], embedding_types=["float"], **task).embeddings.float_

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]


def embed(texts, **fields):
    return client.embed(texts=texts, embedding_types=["float", "binary", "ubinary"], **task, **fields)


answer = embed(texts)
found = {
    "page": vectors,
    "batch": answer.embeddings.float_,
    "tokens": int(answer.meta.billed_units.input_tokens),
    "alone": [embed([text]).embeddings.float_[0] for text in texts],
    "short": embed(texts, output_dimension=128).embeddings.float_,
    "ubinary": answer.embeddings.ubinary,
    "binary": answer.embeddings.binary,
    "empty": embed([""]).embeddings.float_,
}
try:
    embed([texts[0], too_long], truncate="NONE")
except cohere.BadRequestError as error:
    found["error"] = {"text": error.body["message"]}
json.dump(found, sys.stdout)
