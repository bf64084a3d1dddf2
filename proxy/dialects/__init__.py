"""One file per API: a client's JSON → an EmbedRequest, an EmbedResult or an error → the client's JSON.

Owns the field names, defaults and error formats of each API, and the jobs of RunPod's. Never calls a model.
"""
