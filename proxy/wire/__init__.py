"""What all dialects share: the body's JSON, request and response models, inputs, encodings.

Converts between JSON and the types of the core. Never knows one dialect's field names, nor the model behind them.
"""
