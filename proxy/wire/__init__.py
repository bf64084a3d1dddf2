"""What all dialects share: request and response models, inputs, encodings."""
