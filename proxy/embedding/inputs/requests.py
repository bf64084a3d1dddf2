"""The images in a request: which of its inputs they are, and how they are refused or counted. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from proxy.contract.images import AROUND_IMAGE
from proxy.embedding.multivector import TokenEmbedder
from proxy.faults import invalid
from proxy.models.served_model import ServedModel
from proxy.types import EmbedRequest, ImageSource, Refused

# why an image is refused, after `why_refused`'s first words
TEXTS_ONLY = "this server's model takes only texts"
NOT_SET_UP = (
    "this server embeds only text: set images = true under [models] in its configuration, with an engine that "
    "`trillama engine build` made"
)
NO_STATES = (
    "return_multivector is for texts only here: it needs the state of each token of an image, from a token-level "
    "backend that takes images"
)
NO_CHUNKS = "late_chunking takes only texts: the chunks are parts of one text"


def why_refused(image: ImageSource, reason: str) -> str:
    """Why this input is refused, in words that follow its name."""
    return f"is {'a PDF' if image.pdf else 'an image'}, and {reason}"


def images_in(request: EmbedRequest) -> dict[int, ImageSource]:
    """The images among the inputs, by index."""
    return {index: one for index, one in enumerate(request.inputs) if isinstance(one, ImageSource)}


def without_images(request: EmbedRequest, reason: str) -> EmbedRequest:
    """The request with each image refused for that reason."""
    images = images_in(request)
    inputs = ["" if index in images else one for index, one in enumerate(request.inputs)]
    refused = {index: Refused(why_refused(one, reason), "unsupported", "") for index, one in images.items()}
    return replace(request, inputs=inputs, refused={**request.refused, **refused})


def servable(request: EmbedRequest, model: ServedModel, token_embedder: TokenEmbedder | None) -> EmbedRequest:
    """The request, with its images refused if the model cannot serve them. Raises Invalid for images in a document."""
    if request.late:
        images = images_in(request)
        first = min(images)
        raise invalid(f"input.{first}", why_refused(images[first], NO_CHUNKS), kind="unsupported")
    if not model.takes_images:
        return without_images(request, NOT_SET_UP if model.rules.can_pool_images else TEXTS_ONLY)
    if token_embedder and not token_embedder.takes_images:
        return without_images(request, NO_STATES)
    return request


def images_tokens(tiles: Mapping[int, int]) -> int:
    """The tokens of images as the original counts them: with its whole prompt around each."""
    return sum(tiles.values()) + AROUND_IMAGE * len(tiles)
