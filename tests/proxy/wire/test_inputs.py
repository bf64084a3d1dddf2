"""The many shapes of an input, and the errors for invalid ones."""

import pytest

from proxy.faults import Invalid
from proxy.quoting import did_you_mean, quoted, shown
from proxy.types import ImageSource, Input, Refused
from proxy.wire.inputs import MAX_REFUSED, inputs_of, items_of
from tests.support.requests.dialects import embeddings
from tests.support.servers.stack import Stack

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine

IMAGE = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}


def parts(*texts: str) -> list[object]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("a", ("a",)),
        ({"text": "a"}, ("a",)),
        ({"text": "a", "title": "ignored", "type": "chapter"}, ("a",)),
        ({"prompt_string": "a"}, ("a",)),
        ({"prompt_string": "a", "multimodal_data": []}, ("a",)),
        ({"text": "a", "image": None}, ("a",)),
        ({"content": parts("hello ", "world")}, ("hello world",)),
        ({"role": "user", "content": parts("a")}, ("a",)),
        ({"content": [{"text": "a"}, {"type": "input_text", "text": "b"}]}, ("ab",)),
        ([parts("a", "b"), {"content": parts("c")}, "d", {"text": "e"}], ("ab", "c", "d", "e")),
        (parts("a", "b"), ("a", "b")),
        ([1, 2.0, 3], ([1, 2, 3],)),
        ([[1], "a", [2, 3.0]], ([1], "a", [2, 3])),
        ({"image": "https://x/y.png"}, (ImageSource("https://x/y.png"),)),
        ({"image": "AAAA", "text": None, "type": "image"}, (ImageSource("AAAA"),)),
        (["a", {"image": "AAAA"}, {"text": "b"}], ("a", ImageSource("AAAA"), "b")),
        (IMAGE, (ImageSource("https://x/y.png"),)),
        ({"content": [IMAGE]}, (ImageSource("https://x/y.png"),)),
        ([[IMAGE], "a"], (ImageSource("https://x/y.png"), "a")),
        ([{"content": [{"type": "image_url", "image_url": "AAAA"}]}], (ImageSource("AAAA"),)),
        ([{"content": [{"type": "image_base64", "image_base64": "AAAA"}]}], (ImageSource("AAAA"),)),
    ],
)
def test_every_shape_of_an_input_is_that_input(value: object, inputs: tuple[Input, ...]) -> None:
    assert inputs_of(value) == items_of(value) == inputs


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"image": 5}, "is an image, and"),
        ({"text": "a", "image": "https://x/y.png"}, "has both a text and an image"),
        ({"text": "", "image": "https://x/y.png"}, "has both a text and an image"),
        ({"image": "https://x/y.png", "content": parts("a")}, "has both a text and an image"),
        ({"image": "https://x/y.png", "pdf": "https://x/y.pdf"}, "has both image and pdf"),
        ({"pdf": "https://x/y.pdf"}, "is a PDF, which"),
        ({"text": "a", "pdf": "https://x/y.pdf"}, "has both a text and a PDF"),
        ({"image_url": {"file_id": "x"}}, "is an image_url, and"),
        ({"prompt_string": "a <__media__>", "multimodal_data": ["AAAA"]}, "has a multimodal_data, and"),
        ({"content": [*parts("a"), IMAGE]}, "has both a text and an image"),
        ([*parts("a"), IMAGE], "has both a text and an image"),
        ([IMAGE, *parts("a")], "has both a text and an image"),
        ({"content": [{**IMAGE, "text": "a"}]}, "has both a text and an image"),
        ({"content": [IMAGE, IMAGE]}, "has several images"),
        ({"content": [{"pdf": "AAAA"}]}, "is a PDF, which"),
        ({"content": [{"type": "input_audio", "input_audio": {}}]}, "has an input_audio part, and"),
        (
            {"content": [{"type": "refusal", "text": "a"}]},
            "has a part of type 'refusal', and only text and images are read",
        ),
        ({"text": "a", "content": parts("b")}, "has both `text` and `content`"),
        ({"content": "a"}, "must be a string"),
        ({"content": []}, "must be a string"),
        ({"content": [5]}, "must be a string"),
        ({}, "must be a string"),
        ({"type": ["image"]}, "must be a string"),
        ([], "is an empty list of token ids"),
        ([True], "must be a string"),
        ([1, "a"], "must be a string"),
        (None, "must be a string"),
    ],
)
def test_what_is_not_text_is_rejected_by_name_and_index(item: object, said: str) -> None:
    with pytest.raises(Invalid) as refused:
        inputs_of(["a", item])
    assert refused.value.message.startswith(f"input.1: {said}")
    first, second = items_of(["a", item])
    assert first == "a"
    assert isinstance(second, Refused)
    assert second.reason.startswith(said)


@pytest.mark.parametrize("item", [{"content": parts("hello ", "world")}, {"prompt_string": "hello world"}])
async def test_parts_have_the_vector_of_their_text(served: Stack, item: object) -> None:
    body = {"input": ["hello world", item], "dimensions": 8}
    for path in ("/v1/embeddings", "/embeddings"):
        plain, other = embeddings(await served.post(body, path))
        assert other == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("late", [False, True])
async def test_a_partial_request_gets_the_vectors_of_what_is_text(served: Stack, late: bool) -> None:
    items = ["one", {"text": "two", "image": "https://x/y.png"}, "three", 5, [10**9]]
    body = {"input": items, "dimensions": 8, "on_error": "partial", "late_chunking": late}
    answer = await served.post(body)
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert isinstance(data, list)
    assert ["embedding" in row for row in data] == [True, False, True, False, False]
    assert "input.1: has both a text and an image" in data[1]["error"]["message"]
    assert "input.3: must be a string" in data[3]["error"]["message"]
    assert "input.4: token id 1000000000 is not" in data[4]["error"]["message"]
    whole = await served.post({**body, "on_error": "fail"})
    assert (whole.status, "input.1: has both a text and an image" in str(whole.json["detail"])) == (422, True)
    raw = await served.post(body, Accept="application/octet-stream")
    assert (raw.status, "input.1: has both a text and an image" in str(raw.json["detail"])) == (422, True)


def test_a_pdf_is_the_only_input() -> None:
    alone = ImageSource("AAAA", pdf=True)
    assert items_of({"pdf": "AAAA"}) == items_of([{"pdf": "AAAA"}]) == (alone,)
    first, second = items_of([{"pdf": "AAAA"}, {"pdf": "BBBB"}])
    assert isinstance(first, Refused)
    assert isinstance(second, Refused)
    with pytest.raises(Invalid, match="input: is a PDF, which is served at /v1/embeddings only"):
        inputs_of({"pdf": "AAAA"})


def test_of_too_many_invalid_inputs_the_first_is_named() -> None:
    with pytest.raises(Invalid, match=r"^input\.1: must be a string"):
        items_of(["a", *[{}] * (MAX_REFUSED + 1)])


def test_errors_quote_the_value_briefly_as_json() -> None:
    assert quoted({"a": [True, None, "x"]}) == "{'a': [true, null, 'x']}"
    assert shown("x" * 1000) == "x" * 80
    deep: object = 1
    for _ in range(1000):
        deep = [deep, {str(number): deep for number in range(9)}]
    assert len(quoted(deep)) <= 80
    assert did_you_mean("retrieval.qury", ["retrieval.query", "code.query"]) == "; did you mean 'retrieval.query'?"
    assert did_you_mean("x" * 10**7, ["x"]) == did_you_mean(5, ["x"]) == ""
