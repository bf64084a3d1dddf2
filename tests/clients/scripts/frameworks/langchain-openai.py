"""langchain-openai with its defaults: it sends token ids, not text."""

import json
import sys

import openai
from langchain_openai import OpenAIEmbeddings

url = "http://127.0.0.1:8080/v1"
embeddings = OpenAIEmbeddings(model="jina-embeddings-v4:retrieval.passage", base_url=url, api_key="unused")
vectors = embeddings.embed_documents(["a red door", "two fish"])

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]
short = OpenAIEmbeddings(model="jina-embeddings-v4:retrieval.passage", base_url=url, api_key="unused", dimensions=128)
found = {
    "page": vectors,
    "batch": embeddings.embed_documents(texts),
    "alone": [embeddings.embed_query(text) for text in texts],
    "short": short.embed_documents(texts),
    "empty": [embeddings.embed_query("")],
}
try:
    embeddings.embed_documents([texts[0], too_long])
except openai.BadRequestError as error:
    found["error"] = {"text": str(error), "code": error.code}
json.dump(found, sys.stdout)
