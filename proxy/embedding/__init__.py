"""The use cases: a request's texts to token ids, to vectors, to a result; late chunking and multi-vectors.

It owns tasks, prefixes, length limits and what a vector means. It never speaks HTTP and knows no dialect.
"""
