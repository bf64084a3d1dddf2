"""A text as the model sees it: cut into the pieces that its tokens stand for."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from proxy.contract.family import UnicodeForm
from proxy.models.served_model import ServedModel
from proxy.tokens.unicode_form import normalized

MAX_PIECES = 2000  # shown of one text; all are counted


class PieceKind(StrEnum):
    PREFIX = "prefix"
    TEXT = "text"
    SPECIAL = "special"  # the model adds it around the text


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """One token. `text` is empty for one that only continues the character of the one before."""

    id: int
    text: str
    kind: PieceKind


@dataclass(frozen=True, slots=True)
class TextPieces:
    """The first MAX_PIECES of a text's `tokens`."""

    tokens: int
    pieces: list[TokenPiece]


async def pieces_of(text: str, prefix: str, form: UnicodeForm | None, model: ServedModel) -> TextPieces:
    """The text behind its task's prefix, in the model's Unicode form, in pieces.

    Raises Invalid if the engine tokenises by itself, BackendUnavailable before it was verified.
    """
    tokenizer = model.own_tokenizer("input", "is shown in pieces, which need")
    whole, start = prefix + text, prefix
    if form is not None:
        whole, start = await asyncio.to_thread(normalized, whole, form), normalized(prefix, form)
    ids, spans = await asyncio.to_thread(tokenizer.encode_with_offsets, whole, MAX_PIECES)
    pieces, end = list[TokenPiece](), 0
    for token, (first, last) in zip(ids, spans, strict=False):
        if first == last:
            pieces.append(TokenPiece(token, tokenizer.piece(token), PieceKind.SPECIAL))
            continue
        kind = PieceKind.PREFIX if last <= len(start) else PieceKind.TEXT
        pieces.append(TokenPiece(token, whole[end:last], kind))
        end = max(end, last)
    return TextPieces(len(ids), pieces)
