"""The use cases: a request's texts to token ids, to vectors, to a result; late chunking and multi-vectors.

It owns tasks, prefixes, length limits, dimensions and normalisation. It never speaks HTTP and knows no dialect.
"""
