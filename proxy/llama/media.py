"""Images as a llama-server with `--mmproj` and `--pool-media` computes them, in the original's prompt.

The original pools an image over the tokens from `<|vision_start|>` to `<|vision_end|>`, which llama.cpp puts around it;
the engine answers with the mean over its whole prompt. The model is causal, so what stands behind the image changes
nothing and is left out, and the states of what stands before it are the same for all images: they are subtracted.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from proxy.errors import BackendError
from proxy.llama.client import LlamaClient
from proxy.llama.token_client import TokenClient
from proxy.types import Ids, Matrix, Picture, Vector

IMAGE_BEFORE, IMAGE_BEHIND = "<|im_start|>user\n", "Describe the image.<|im_end|>\n"
AROUND_PICTURE = 2  # tokens that llama.cpp puts around an image
_SENTENCE = "what do llamas, alpacas, vicuñas and guanacos eat in the high Andes in winter? "
_KNOWN_TOKENS = 250  # about: beside these the six of the smallest image weigh little, even if states cancel in the mean
_NEARLY = 0.3  # of the text's mean: how far that of both may be from it; a single state is further away

TokenizeTexts = Callable[[Sequence[str]], Awaitable[Sequence[Ids]]]


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """An image in its prompt, as it is sent, and how many tokens the engine makes of both."""

    json: bytes
    tokens: int


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """The prompt of images for one engine: what stands for an image, and how many tokens are `before` and `behind` it.

    `sum_before` is the sum of the states of the former, (n_embd,).
    """

    marker: str
    before: int
    behind: int
    sum_before: NDArray[np.float64]

    def around(self, picture: Picture) -> WrittenImage:
        """The image with what stands before it: its vector needs no more."""
        tokens = self.before + AROUND_PICTURE + picture.tokens
        return WrittenImage(_written(IMAGE_BEFORE + self.marker, picture), tokens)

    def whole(self, picture: Picture) -> WrittenImage:
        """The image in its whole prompt, for the states of all of its tokens."""
        tokens = self.before + AROUND_PICTURE + picture.tokens + self.behind
        return WrittenImage(_written(IMAGE_BEFORE + self.marker + IMAGE_BEHIND, picture), tokens)

    def vector(self, mean: Vector, tokens: int) -> Vector:
        """The mean over an image's own tokens, from that over all `tokens` of what `around` gives."""
        own = (tokens * mean.astype(np.float64) - self.sum_before) / (tokens - self.before)
        return own.astype(np.float32)

    def own_states(self, states: Matrix) -> Matrix:
        """The states of an image's own tokens, out of those of its whole prompt."""
        return states[self.before : len(states) - self.behind]


async def image_prompt(client: LlamaClient, marker: str, tokenize: TokenizeTexts, check: Picture) -> ImagePrompt:
    """The prompt for this engine; `check` is a small image. Raises BackendError if the engine does not pool images."""
    before, behind, sentence = await tokenize([IMAGE_BEFORE, IMAGE_BEHIND, _SENTENCE])
    if not isinstance(client, TokenClient):  # that one's answers have a state for each token, or are refused
        text = _SENTENCE * max(1, _KNOWN_TOKENS // len(sentence))
        await _check_pooled(client, (await tokenize([text]))[0], _written(text + marker, check), check.tokens)
    (mean,) = await client.embed([before])
    return ImagePrompt(marker, len(before), len(behind), mean.astype(np.float64) * len(before))


async def _check_pooled(client: LlamaClient, known: Ids, with_image: bytes, tiles: int) -> None:
    """Raises BackendError if it pools only what stands behind an image, as llama-server without the patch does.

    It gets a text, and that text before a small image: the mean over both is nearly the text's own, but the state of
    one token is not.
    """
    (text,) = (await client.embed([known])).astype(np.float64)
    answer = await client.send([with_image])
    tokens = len(known) + AROUND_PICTURE + tiles
    if (counted := client.tokens_in(answer)) != tokens:
        raise BackendError(f"backend {client.name} makes {counted} tokens of an image and a text, not {tokens}")
    both = client.read(answer, 1)[0].astype(np.float64)
    if not np.linalg.norm(both - text) <= _NEARLY * np.linalg.norm(text):
        message = f"backend {client.name} does not pool images: start it with --pool-media (trillama engine build)"
        raise BackendError(message)


def _written(prompt: str, picture: Picture) -> bytes:
    return b'{"prompt_string":%b,"multimodal_data":["%b"]}' % (orjson.dumps(prompt), picture.file)
