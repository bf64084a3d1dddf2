"""What is recorded of each request: its metrics, its line in the log, its row in the console, its span in a trace.

`observe` is the middleware that records. No text of a request is in any of them.
"""
