"""SentencePiece's precompiled map of characters: which sequences of bytes are replaced by which text.

Its layout: the bytes of a trie as uint32, the trie as a double array (darts-clone), and the texts, each ended by NUL.
"""

import numpy as np
from numpy.typing import NDArray
from tokenizers import normalizers

from proxy.tokens.kinds.vocabulary import UnsupportedTokenizer

_VALUE = np.uint32(2**31)  # set in units that hold the place of a text


def charsmap_normalizer(charsmap: bytes) -> normalizers.Precompiled:
    """The map as a normaliser. Raises UnsupportedTokenizer if it is damaged: following it, `tokenizers` would panic."""
    length = int.from_bytes(charsmap[:4], "little")
    texts = charsmap[4 + length :]
    if length % 4 or not texts or not _is_safe(np.frombuffer(charsmap[4 : 4 + length], dtype="<u4"), texts):
        raise UnsupportedTokenizer("tokenizer.ggml.precompiled_charsmap is damaged")
    try:
        return normalizers.Precompiled(charsmap)
    except Exception as error:  # tokenizers raises no narrower one
        raise UnsupportedTokenizer(f"tokenizer.ggml.precompiled_charsmap: {error}") from error


def _is_safe(units: NDArray[np.uint32], texts: bytes) -> bool:
    """Whether every step from every unit stays in the array, and every value is where a text begins."""
    if not len(units) or units[0] & _VALUE:
        return False
    inner = np.flatnonzero(units < _VALUE)
    bases = inner ^ ((units[inner] >> 10) << ((units[inner] & 512) >> 6))
    if (bases | 0xFF).max() >= len(units):
        return False
    values = units[bases[(units[inner] >> 8) & 1 == 1]] & ~_VALUE
    starts = np.frombuffer(texts, dtype=np.uint8)
    return bool((values < len(texts)).all() and ((starts[values] & 0xC0) != 0x80).all())
