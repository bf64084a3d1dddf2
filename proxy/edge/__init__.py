"""Admission of requests: connections and their deadlines, hosts and origins, API keys, bodies.

Owns the listening socket and every client's connection. Never knows what a request asks for.
"""
