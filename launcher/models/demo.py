"""Generates three small models, so that the whole service can be tried without a download or a GPU.

They know words by their letters, not by their meaning: a text's vector is the mean of one random vector for every four
consecutive letters (fastText's idea), expressed as a one-layer transformer that any llama.cpp runs.

- A token is a byte. Its embedding is one-hot: letters in lower case, digits, bytes of other scripts, and one position
  for everything that is not part of a word.
- Attention looks at positions only: head h copies the letter h positions back, so each token knows its last four.
  Head 0 also adds a faint vector for each letter, for texts without a gram.
- A unit of the feed-forward network is on if all four letters are in its own random sets, as for one gram in sixteen,
  and then outputs a random value for these four letters. Grams that differ in one letter share half of their units.
- A gram is four letters, or a space and the first three letters of a word: a word of n letters has n - 2. So long
  words count more than function words, and words of two letters do not count.
"""

import fcntl
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, TokenType

from launcher.arrays import F32
from launcher.conversion.gguf_writer import finish_file
from launcher.host import disk

_VERSION = 1  # part of the file names: raise it with any change to the content
SEEDS = {"retrieval": 1, "code": 2, "text-matching": 3}

_DIMENSIONS, _CONTEXT, _HEADS, _KV_HEADS, HEAD_SIZE = 2048, 32768, 16, 2, 128
GRAM = 4  # letters
_UNITS = 1504  # one dimension each, from 0 on: a truncated vector keeps its share; a multiple of 32, as Q8_0 requires
CONSTANT = 1535  # this dimension holds LOUD, which outweighs all others, so that RMS norms divide by 1
LETTERS = 1536  # from here on, GRAM one-hots
LOUD = _DIMENSIONS**0.5
FREQUENCY_BASE = 4.0  # high frequencies only: the next position must differ clearly
ATTENTION = 6.0  # length of each pair of numbers in queries and keys: other positions get e^-33 of the weight
GATE = 16.0  # a unit is on at +GATE / 2, off at -GATE / 2 and below
LOUDNESS = 0.03  # of a unit: a gram has length 4.6, small against LOUD
BACKGROUND = 0.001  # of a letter, in each unit's dimension, so that no text has a zero vector

END, _PREFIXES, SPACES = "<|endoftext|>", ("Query:", "Passage:"), "ĠĠ"
OTHER = HEAD_SIZE - 1  # the position of everything that is not part of a word


def demo_models(folder: Path) -> dict[str, Path]:
    """The demo model of each backend, generated in `folder` by the first process, in a second. Raises OSError.

    20 MB each, 2048 dimensions, the architecture of jina-embeddings-v4. Blocks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {backend: folder / f"demo-v{_VERSION}-{backend}.gguf" for backend in SEEDS}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for backend, path in paths.items():
            if not path.exists():
                with disk.atomic_file(path) as unfinished:
                    _write(unfinished, SEEDS[backend])
    return paths


def _write(path: Path, seed: int) -> None:
    writer = gguf.GGUFWriter(path, "qwen2vl")
    _describe(writer)
    add_tokenizer(writer)
    for name, values in _tensors(np.random.default_rng(seed)):
        kind = GGMLQuantizationType.Q8_0 if values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    finish_file(writer)


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("trillama demo (shared words only, not meaning)")
    writer.add_description("Made by trillama to try it out: texts are near when they share words or parts of words.")
    writer.add_license("MIT")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_DIMENSIONS)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_UNITS)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_rope_freq_base(FREQUENCY_BASE)
    writer.add_rope_dimension_sections([16, 24, 24, 0])  # as in Qwen2-VL; a text's positions are the same in all
    writer.add_layer_norm_rms_eps(1e-6)


def add_tokenizer(writer: gguf.GGUFWriter, *control: str) -> None:
    """Bytes, one merge (llama.cpp requires one), the prefixes as tokens without meaning, `control`, the end token."""
    tokens = [*_alphabet(), SPACES, *_PREFIXES, *control, END]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    counts = {TokenType.NORMAL: 257, TokenType.USER_DEFINED: len(_PREFIXES), TokenType.CONTROL: len(control) + 1}
    writer.add_token_types([kind for kind, count in counts.items() for _ in range(count)])
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(tokens.index(END))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_pad_token_id(tokens.index(END))
    writer.add_add_bos_token(False)


def _alphabet() -> list[str]:
    """GPT-2's printable character for each byte: its own if visible, else one from 256 on."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def _place(byte: int) -> int:
    """The index of a byte's one in its one-hot."""
    letter = chr(byte).lower()
    if byte < 128:
        return "abcdefghijklmnopqrstuvwxyz0123456789".find(letter) % HEAD_SIZE  # -1 is OTHER
    return 36 + byte % 91  # bytes of one script that share a position are far apart in it


def _tensors(random: np.random.Generator) -> Iterator[tuple[str, F32]]:
    """Name and values, (rows, columns) in numpy's order: a matrix maps `columns` inputs to `rows` outputs."""
    shown = np.zeros(_DIMENSIONS, np.float32)
    shown[:_UNITS] = 1.0
    yield "token_embd.weight", _embeddings()
    yield "output_norm.weight", shown
    yield "blk.0.attn_norm.weight", np.ones(_DIMENSIONS, np.float32)
    yield "blk.0.ffn_norm.weight", np.ones(_DIMENSIONS, np.float32)
    yield from _attention(random)
    yield from _grams(random)


def _embeddings() -> F32:
    places = np.array([*map(_place, range(256)), *[OTHER] * (2 + len(_PREFIXES))])
    embeddings = np.zeros((len(places), _DIMENSIONS), np.float32)
    embeddings[np.arange(len(places)), LETTERS + places] = 1.0
    embeddings[:, CONSTANT] = LOUD
    return embeddings


def _attention(random: np.random.Generator) -> Iterator[tuple[str, F32]]:
    half = HEAD_SIZE // 2
    turn = FREQUENCY_BASE ** -(np.arange(half) / half)  # radians by which RoPE turns each pair of numbers per position
    queries = np.zeros((_HEADS, 2, half), np.float32)
    for back in range(GRAM):
        queries[back] = ATTENTION * np.stack((np.cos(back * turn), -np.sin(back * turn)))
    keys = np.zeros((_KV_HEADS, 2, half), np.float32)
    keys[:, 0] = ATTENTION
    for name, bias in (("q", queries), ("k", keys)):
        yield f"blk.0.attn_{name}.weight", np.zeros((bias.size, _DIMENSIONS), np.float32)
        yield f"blk.0.attn_{name}.bias", bias.reshape(-1)
    values = np.zeros((_KV_HEADS * HEAD_SIZE, _DIMENSIONS), np.float32)
    values[:HEAD_SIZE, LETTERS : LETTERS + HEAD_SIZE] = np.eye(HEAD_SIZE)
    output = np.zeros((_DIMENSIONS, _HEADS * HEAD_SIZE), np.float32)
    copied = np.arange(HEAD_SIZE, GRAM * HEAD_SIZE)  # head h writes the h-th one-hot; the embedding is number 0
    output[LETTERS + copied, copied] = 1.0
    output[:_UNITS, :HEAD_SIZE] = BACKGROUND * random.standard_normal((_UNITS, HEAD_SIZE))
    yield "blk.0.attn_v.weight", values
    yield "blk.0.attn_v.bias", np.zeros(len(values), np.float32)
    yield "blk.0.attn_output.weight", output


def _grams(random: np.random.Generator) -> Iterator[tuple[str, F32]]:
    sets = random.integers(0, 2, (_UNITS, GRAM, HEAD_SIZE)).astype(np.float32)
    sets[:, : GRAM - 1, OTHER] = -GRAM  # only the first letter of a gram may be the space before a word
    gate = np.zeros((_UNITS, _DIMENSIONS), np.float32)
    gate[:, LETTERS:] = GATE * sets.reshape(_UNITS, -1)
    gate[:, CONSTANT] = GATE * (0.5 - GRAM) / LOUD
    up = np.zeros((_UNITS, _DIMENSIONS), np.float32)
    up[:, LETTERS:] = random.choice([-1.0, 1.0], (_UNITS, GRAM * HEAD_SIZE))
    yield "blk.0.ffn_gate.weight", gate
    yield "blk.0.ffn_up.weight", up
    yield "blk.0.ffn_down.weight", LOUDNESS * np.eye(_DIMENSIONS, _UNITS, dtype=np.float32)
