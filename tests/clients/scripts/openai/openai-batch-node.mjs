// A batch by OpenAI's package for Node.
import { readFileSync } from "node:fs";

import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: "unused" });
const { texts } = JSON.parse(readFileSync(0, "utf8"));

const line = (custom_id, input) => JSON.stringify({
  custom_id, method: "POST", url: "/v1/embeddings", body: { model: "jina-embeddings-v4", task: "retrieval.passage", input },
});
const created = async (lines) => {
  const file = await client.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "lines.jsonl"), purpose: "batch" });
  return client.batches.create({
    input_file_id: file.id, endpoint: "/v1/embeddings", completion_window: "24h", metadata: { name: "nightly" },
  });
};
const ended = async (batch) => {
  while (!["completed", "failed", "cancelled", "expired"].includes(batch.status)) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
};
const linesOf = async (id) => (await (await client.files.content(id)).text()).trim().split("\n").map((one) => JSON.parse(one));

const batch = await ended(await created([...texts.map((text, n) => line(`text-${n}`, text)), line("bad", [])]));
const output = await linesOf(batch.output_file_id);
const errors = await linesOf(batch.error_file_id);
const files = [];
for await (const file of client.files.list()) files.push(file.id);
const found = {
  status: batch.status,
  metadata: batch.metadata,
  counts: batch.request_counts,
  ids: output.map((one) => one.custom_id),
  vectors: output.map((one) => one.response.body.data[0].embedding),
  errors: Object.fromEntries(errors.map((one) => [one.custom_id, one.response.status_code])),
  listed: (await client.batches.list({ limit: 1 })).data[0].id === batch.id,
  files: files.includes(batch.input_file_id) && files.includes(batch.output_file_id),
  purpose: (await client.files.retrieve(batch.output_file_id)).purpose,
  deleted: (await client.files.delete(batch.output_file_id)).deleted,
  cancelled: (await ended(await client.batches.cancel((await created(Array.from({ length: 500 }, (_, n) => line(`${n}`, texts)))).id))).status,
};
try {
  await client.files.content(batch.output_file_id);
} catch (error) {
  if (!(error instanceof OpenAI.NotFoundError)) throw error;
  found.missing = error.code;
}
console.log(JSON.stringify(found));
