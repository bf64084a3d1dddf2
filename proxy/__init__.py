"""The HTTP side of trillama: Jina's and OpenAI's embeddings API in front of llama-servers."""

PART_OF = "trillama"  # how `trillama.py` recognises this package
