"""voyageai, with images."""

import io
import json
import sys

import PIL.Image
import voyageai

client = voyageai.Client(api_key="unused", base_url="http://127.0.0.1:8080/v1")
image = PIL.Image.open(io.BytesIO(sys.stdin.buffer.read()))


def embed(inputs):
    return client.multimodal_embed(inputs, model="jina-embeddings-v4", input_type="document")


answer = embed([[image], ["a red door"]])
found = {"vectors": answer.embeddings, "facts": [answer.image_pixels]}
try:
    embed([[image, "a red door"]])
except voyageai.error.MalformedRequestError as error:
    found["refused"] = str(error)
json.dump(found, sys.stdout)
