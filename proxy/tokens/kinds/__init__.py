"""The kinds of tokenizers that GGUF files have, one module for each; `proxy.tokens.gguf_tokenizer` chooses.

A kind reads its keys of the header and builds a tokenizer of the library `tokenizers`, or says why it cannot.
"""
