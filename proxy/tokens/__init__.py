"""Texts to token ids and back, exactly as the model was trained: its tokenizer, Unicode forms, foreign ids.

It never asks an engine, and knows no request.
"""
