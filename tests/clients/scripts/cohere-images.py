"""cohere, with images."""

import base64
import json
import sys

import cohere

client = cohere.ClientV2(api_key="unused", base_url="http://127.0.0.1:8080")
uri = "data:image/png;base64," + base64.b64encode(sys.stdin.buffer.read()).decode()
image = {"type": "image_url", "image_url": {"url": uri}}
text = {"type": "text", "text": "a red door"}
model = {"model": "jina-embeddings-v4", "embedding_types": ["float"]}

alone = client.embed(images=[uri], input_type="image", **model)
both = client.embed(inputs=[{"content": [image]}, {"content": [text]}], input_type="search_document", **model)
assert alone.meta.billed_units.images == 1
facts = alone.images[0]
found = {
    "vectors": [alone.embeddings.float_[0], both.embeddings.float_[1]],
    "facts": [facts.width, facts.height, facts.format, facts.bit_depth],
}
try:
    client.embed(inputs=[{"content": [image, text]}], input_type="search_document", **model)
except cohere.UnprocessableEntityError as error:
    found["refused"] = str(error.body)
json.dump(found, sys.stdout)
