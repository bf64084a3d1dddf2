"""The HTTP side of trillama: the embeddings APIs of Jina, OpenAI and others in front of llama-servers.

The path of one request, folder by folder; each imports only from those below it (`lint-imports` checks this):

- `edge`: a connection is accepted within its limits and deadlines; host, origin and key are checked, the body is read.
- `http`: the route's handler; `dialects` and `wire`: JSON of a client's API → one `EmbedRequest` (`types`).
- `batches`: jobs of many requests, each of which then takes this path from `embedding` on; `bulk` runs their parts.
- `embedding`: the task and its prefix; late chunks, multi-vectors and truncation; dimensions and normalisation.
- `models`: the backend of the task: whether it serves now, which vectors it has cached. `tokens`: texts → token ids.
- `scheduling`: the backend's queue: fair between API keys, composed into batches, retried, failed texts isolated.
- `llama`: the client of one llama-server. The vectors then return the same way, rendered by the dialect.

A Front has `front` in place of the service in `embedding` and all below it: pieces of the request → nodes, each a proxy
like this.

Around that path `telemetry` records each request: its log line, its metrics, its trace. Beside it `console` and
`monitoring` read what an operator wants to see.
`contract` and `bulk`, jobs of many rows, are what the launcher shares with the proxy; `process` concerns the process
alone; `app` and `backends` connect the parts.
"""

PART_OF = "trillama"  # how `trillama.py` recognises this package
