"""The Hugging Face hub and its cache on disk: listings, downloads, files.

The only place that talks to the hub's client; knows no GGUF.
"""
