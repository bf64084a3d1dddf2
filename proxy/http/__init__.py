"""Routes and responses: which handler serves a path, how its response is written, and the documents about the API.

Owns the public routes and the launcher's admin socket. Never computes vectors, and knows no dialect's fields.
"""
