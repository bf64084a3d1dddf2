"""Routes and responses: which handler answers a path, and how an answer is written."""
