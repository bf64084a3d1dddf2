"""Batch jobs of Jina's and OpenAI's APIs: files of requests, computed in the background, with results kept on disk.

A job is a folder. Whoever serves a request reads and writes there; one process at a time, the owner of a lock, runs
the jobs. So a job survives the process, and two proxies can live beside each other. Never knows HTTP's connections.
"""
