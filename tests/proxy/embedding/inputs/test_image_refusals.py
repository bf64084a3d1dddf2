"""Images where none can be served: each is refused by its index, in words that fit what was sent and the model."""

import pytest

from proxy.contract.family import Pooling, VectorRules
from proxy.embedding.inputs.requests import NOT_SET_UP, TEXTS_ONLY, without_images
from proxy.types import EmbedRequest, ImageSource


@pytest.mark.parametrize("reason", [NOT_SET_UP, TEXTS_ONLY])
@pytest.mark.parametrize(("pdf", "name"), [(False, "an image"), (True, "a PDF")])
def test_a_refusal_names_what_was_sent(reason: str, pdf: bool, name: str) -> None:
    request = without_images(EmbedRequest(inputs=["a text", ImageSource("https://x/y", pdf=pdf)]), reason)
    assert list(request.inputs) == ["a text", ""]
    assert request.refused.keys() == {1}
    assert request.refused[1].reason == f"is {name}, and {reason}"


@pytest.mark.parametrize(
    ("pooling", "causal", "possible"),
    [("mean", True, True), ("mean", False, False), ("last", True, False), ("cls", False, False)],
)
def test_only_a_mean_over_what_came_before_can_be_an_image_s_vector(
    pooling: Pooling, causal: bool, possible: bool
) -> None:
    assert VectorRules(pooling=pooling, causal=causal).can_pool_images is possible
