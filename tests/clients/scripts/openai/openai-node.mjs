// OpenAI's package for Node.
import { readFileSync } from "node:fs";

import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: "unused" });
const answer = await client.embeddings.create({ model: "jina-embeddings-v4:retrieval.passage", input: ["a red door", "two fish"] });
const vectors = answer.data.map((row) => row.embedding);

const { texts, too_long } = JSON.parse(readFileSync(0, "utf8"));

const ask = (input, fields) => client.embeddings.create({ model: "jina-embeddings-v4", task: "retrieval.passage", input, ...fields });
const embed = async (input, fields) => (await ask(input, fields)).data.map((row) => row.embedding);

const alone = [];
for (const text of texts) alone.push(...(await embed(text)));
const found = {
  page: vectors,
  batch: await embed(texts),
  tokens: (await ask(texts)).usage.total_tokens,
  alone,
  short: await embed(texts, { dimensions: 128 }),
  float: await embed(texts, { encoding_format: "float" }),
  empty: await embed(""),
};
try {
  await embed([texts[0], too_long]);
} catch (error) {
  if (!(error instanceof OpenAI.BadRequestError)) throw error;
  found.error = { text: error.message, code: error.code };
}
console.log(JSON.stringify(found));
