"""AzureOpenAI of OpenAI's Python package."""

import json
import sys

import openai
from openai import AzureOpenAI

client = AzureOpenAI(azure_endpoint="http://127.0.0.1:8080", api_key="unused", api_version="2024-10-21")
answer = client.embeddings.create(model="jina-embeddings-v4:retrieval.passage", input=["a red door", "two fish"])
vectors = [row.embedding for row in answer.data]

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]

# As LangChain does it: the deployment is in the address, and the model is OpenAI's.
deployed = AzureOpenAI(
    azure_endpoint=str(client.base_url).removesuffix("/openai/"),
    azure_deployment="jina-embeddings-v4:retrieval.passage",
    api_key="unused",
    api_version="2024-10-21",
)


def embed(texts, **fields):
    answer = deployed.embeddings.create(model="text-embedding-ada-002", input=texts, **fields)
    return [row.embedding for row in answer.data], answer.usage.total_tokens


batch, tokens = embed(texts)
found = {
    "page": vectors,
    "batch": batch,
    "tokens": tokens,
    "alone": [embed(text)[0][0] for text in texts],
    "short": embed(texts, dimensions=128)[0],
    "models": [model.id for model in client.models.list()],
}
try:
    embed([texts[0], too_long])
except openai.BadRequestError as error:
    found["error"] = {"text": str(error), "code": error.code}
json.dump(found, sys.stdout)
