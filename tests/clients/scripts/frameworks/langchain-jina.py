"""langchain-community's JinaEmbeddings."""

import json
import sys

from langchain_community.embeddings import JinaEmbeddings, jina

jina.JINA_API_URL = "http://127.0.0.1:8080/v1/embeddings"
embeddings = JinaEmbeddings(model_name="jina-embeddings-v4:retrieval.passage", jina_api_key="unused")
vectors = embeddings.embed_documents(["a red door", "two fish"])

given = json.load(sys.stdin)
texts, too_long = given["texts"], given["too_long"]
found = {
    "page": vectors,
    "batch": embeddings.embed_documents(texts),
    "alone": [embeddings.embed_query(text) for text in texts],
    "empty": [embeddings.embed_query("")],
}
try:
    embeddings.embed_documents([texts[0], too_long])
except RuntimeError as error:
    found["error"] = {"text": str(error)}
json.dump(found, sys.stdout)
