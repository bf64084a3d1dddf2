"""`trillama corpus`: embeds whole corpora, in jobs that survive crashes, restarts and lost servers.

`cli` reads the arguments; `plan` fixes what a job is, and `rows.inputs` of which files. `rows` reads those,
`pending` makes calls of them, and `endpoint` sends those; `job` runs it all with `proxy.bulk`, and `output` writes the
parts. `verification` reads them. `on_hosts` does the same on many hosts.
"""
