"""WordPiece (`bert`), as BERT's original tokenizer computes it. llama.cpp's differs for some words:

- It drops the vowels and finals of Hangul and the vowel signs of Indic scripts, as if they were accents; BERT drops
  only what Unicode calls a nonspacing mark (Mn), after its canonical decomposition (NFD).
- BERT makes a word of more than 100 characters [UNK]; llama.cpp splits it.

In the file a word's first part has "▁" before it and the others nothing; in BERT the others have "##".
"""

from collections.abc import Mapping

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, normalizers, pre_tokenizers

from proxy.contract.gguf import Value
from proxy.tokens.kinds.vocabulary import SPECIAL_KINDS, BuiltTokenizer, Id, Vocabulary, ids_of, specials

LONGEST_WORD = 100  # characters; BERT's, in no file
_FIRST, _OTHER = "▁", "##"


def wordpiece(metadata: Mapping[str, Value]) -> BuiltTokenizer:
    """The tokenizer, as the header describes it. See `vocabulary.BuildTokenizer`."""
    header = _Header.model_validate(metadata)
    header.check_ids("[CLS], [SEP] or [UNK]", header.bos_token_id, header.seperator_token_id, header.unknown_token_id)
    named = [(_original(token, kind), kind) for token, kind in header.typed]
    model = models.WordPiece(
        vocab=ids_of([token for token, _ in named]),
        unk_token=named[header.unknown_token_id][0],
        max_input_chars_per_word=LONGEST_WORD,
        continuing_subword_prefix=_OTHER,
    )
    inner = tokenizers.Tokenizer(model)
    inner.normalizer = normalizers.BertNormalizer(lowercase=header.lowercase, strip_accents=header.strip_accents)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix=_OTHER, cleanup=False)
    inner.add_special_tokens(specials(named))
    # No longest: white space and control characters have no token, and a word of any length is one [UNK].
    return BuiltTokenizer(inner=inner, before=[header.bos_token_id], after=[header.seperator_token_id], longest=None)


class _Header(Vocabulary):
    bos_token_id: Id = 101  # [CLS]; llama.cpp adds both whatever the file says
    seperator_token_id: Id = 102  # spelt so in GGUF
    unknown_token_id: Id = 100
    lowercase: bool = Field(default=True, alias="tokenizer.ggml.normalizer.lowercase")
    strip_accents: bool | None = Field(default=None, alias="tokenizer.ggml.normalizer.strip_accents")


def _original(token: str, kind: int) -> str:
    """The token as BERT's own vocabulary has it."""
    if kind in SPECIAL_KINDS:
        return token.removeprefix(_FIRST)
    return token.removeprefix(_FIRST) if token.startswith(_FIRST) else _OTHER + token
