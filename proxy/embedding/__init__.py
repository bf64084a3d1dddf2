"""The use cases: a request's texts to token ids, to vectors, to a result."""
