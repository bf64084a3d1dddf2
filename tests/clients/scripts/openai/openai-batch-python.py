"""A batch by OpenAI's Python package."""

import io
import json
import sys
import time

import openai
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="unused")
texts = json.load(sys.stdin)["texts"]


def line(custom_id, text):
    body = {"model": "jina-embeddings-v4", "task": "retrieval.passage", "input": text}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body})


def created(lines):
    file = client.files.create(file=("lines.jsonl", io.BytesIO("\n".join(lines).encode())), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h", metadata={"name": "nightly"}
    )


def ended(batch):
    while batch.status not in {"completed", "failed", "cancelled", "expired"}:
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def lines_of(file_id):
    return [json.loads(one) for one in client.files.content(file_id).text.splitlines()]


batch = ended(created([*(line(f"text-{n}", text) for n, text in enumerate(texts)), line("bad", [])]))
output, errors = lines_of(batch.output_file_id), lines_of(batch.error_file_id)
found = {
    "status": batch.status,
    "metadata": batch.metadata,
    "counts": batch.request_counts.model_dump(),
    "ids": [one["custom_id"] for one in output],
    "vectors": [one["response"]["body"]["data"][0]["embedding"] for one in output],
    "errors": {one["custom_id"]: one["response"]["status_code"] for one in errors},
    "listed": batch.id in [one.id for one in client.batches.list(limit=1)],
    "files": {batch.input_file_id, batch.output_file_id} <= {one.id for one in client.files.list()},
    "purpose": client.files.retrieve(batch.output_file_id).purpose,
    "deleted": client.files.delete(batch.output_file_id).deleted,
    "cancelled": ended(client.batches.cancel(created([line(f"{n}", texts) for n in range(500)]).id)).status,
}
try:
    client.files.content(batch.output_file_id)
except openai.NotFoundError as error:
    found["missing"] = error.code
json.dump(found, sys.stdout)
