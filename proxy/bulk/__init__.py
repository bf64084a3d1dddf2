"""Bulk jobs: rows by the million, in parts that are done or not, through calls that may fail.

For both packages: `trillama corpus` and the batch APIs of the proxy. Knows neither HTTP nor any file format: how a call
is sent and how a part is written is given by the caller. Imports nothing else of the proxy.
"""
