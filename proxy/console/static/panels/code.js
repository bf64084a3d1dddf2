// A request as code to copy.

const url = () => new URL("v1/embeddings", location.href).href;

const WRITERS = { curl, python, javascript };

/** One call for each body. */
export function code(language, bodies, needsKey) {
  return bodies.map((body) => WRITERS[language](body, needsKey)).join("\n\n");
}

function curl(body, needsKey) {
  const key = needsKey ? ' -H "Authorization: Bearer $API_KEY"' : "";
  const text = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl ${url()}${key} -H 'Content-Type: application/json' \\\n  -d '${text}'`;
}

function python(body, needsKey) {
  const imports = needsKey ? "import os\nimport requests\n\n" : "import requests\n\n";
  const key = needsKey ? ',\n    headers={"Authorization": f"Bearer {os.environ[\'API_KEY\']}"}' : "";
  const text = JSON.stringify(body, null, 4).replaceAll("\n", "\n    ").replace('"late_chunking": true', '"late_chunking": True');
  return `${imports}response = requests.post(\n    "${url()}"${key},\n    json=${text},\n)\nvectors = [row["embedding"] for row in response.json()["data"]]`;
}

function javascript(body, needsKey) {
  const key = needsKey ? ', Authorization: `Bearer ${process.env.API_KEY}`' : "";
  const text = JSON.stringify(body, null, 2).replaceAll("\n", "\n  ");
  return `const response = await fetch("${url()}", {\n  method: "POST",\n  headers: { "Content-Type": "application/json"${key} },\n  body: JSON.stringify(${text}),\n});\nconst vectors = (await response.json()).data.map((row) => row.embedding);`;
}
