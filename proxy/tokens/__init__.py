"""Texts to token ids and back, exactly as the model was trained: byte-level BPE, Unicode forms, foreign ids.

It never asks an engine, and knows no request.
"""
