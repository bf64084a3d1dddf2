"""Images as a llama-server with `--mmproj` and `--pool-media` computes them, in the original's prompt.

The original pools an image over the tokens from `<|vision_start|>` to `<|vision_end|>`, which llama.cpp puts around it;
the engine answers with the mean over its whole prompt. The model is causal, so what stands behind the image changes
nothing and is left out, and the states of what stands before it are the same for all images: they are subtracted.
"""

from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from proxy.errors import BackendError
from proxy.llama.client import LlamaClient
from proxy.types import Ids, Matrix, Picture, Vector

BEFORE, BEHIND = "<|im_start|>user\n", "Describe the image.<|im_end|>\n"
TOKENS_BEFORE, TOKENS_AROUND, TOKENS_BEHIND = 3, 2, 6
_REPEATED = 64  # of the first token before an image, for the check
_MOST = 24.0  # states, of the six at most that the check looks for


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """An image in its prompt, as it is sent, and how many tokens the engine makes of both."""

    json: bytes
    tokens: int


def written(picture: Picture, marker: str, *, whole: bool = False) -> WrittenImage:
    """The image in its prompt; `whole`: with what stands behind it, for the states of all of its tokens."""
    tokens = TOKENS_BEFORE + TOKENS_AROUND + picture.tokens + (TOKENS_BEHIND if whole else 0)
    return WrittenImage(_written(BEFORE + marker + (BEHIND if whole else ""), picture), tokens)


@dataclass(frozen=True, slots=True)
class ImagePooling:
    """`before`: the sum of the states of the tokens before every image, (n_embd,)."""

    before: NDArray[np.float64]

    def vector(self, mean: Vector, tokens: int) -> Vector:
        """The mean over an image's own tokens, from that over all `tokens` of its prompt."""
        own = (tokens * mean.astype(np.float64) - self.before) / (tokens - TOKENS_BEFORE)
        return own.astype(np.float32)


def own_states(states: Matrix) -> Matrix:
    """The states of an image's own tokens, out of those of its whole prompt."""
    return states[TOKENS_BEFORE : len(states) - TOKENS_BEHIND]


async def image_pooling(client: LlamaClient, before: Ids, marker: str, check: Picture) -> ImagePooling:
    """How the engine pools images. `before` are the tokens of BEFORE; `check` is any small image.

    Raises BackendError if it pools only what stands behind an image, as llama-server without the patch does: it is
    asked for the mean over one token many times, which is known, and then an image.
    """
    name = client.name
    if len(before) != TOKENS_BEFORE:
        raise BackendError(f"backend {name} makes {len(before)} tokens of an image's prompt: images need Qwen's tokens")
    repeated = np.array([before[0]] * _REPEATED, dtype=np.int32)
    prompt, known = (await client.embed([before, repeated])).astype(np.float64)
    answer = await client.send([_written("<|im_start|>" * _REPEATED + marker, check)])
    tokens = _REPEATED + TOKENS_AROUND + check.tokens
    if (counted := client.tokens_in(answer)) != tokens:
        raise BackendError(f"backend {name} makes {counted} tokens of an image and its prompt, not {tokens}")
    mean = client.read(answer, 1)[0].astype(np.float64)
    if not np.linalg.norm(tokens * mean - _REPEATED * known) <= _MOST * np.linalg.norm(known):
        raise BackendError(f"backend {name} does not pool images: start it with --pool-media (trillama engine build)")
    return ImagePooling(prompt * TOKENS_BEFORE)


def _written(prompt: str, picture: Picture) -> bytes:
    return b'{"prompt_string":%b,"multimodal_data":["%b"]}' % (orjson.dumps(prompt), picture.file)
