"""Images through the whole proxy, on a real llama-server: their vectors, beside texts, and every refusal by index."""

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from launcher.images.prompt import golden_pixels
from tests.launcher.images.sizes import SIZES
from tests.support.nodes.front import front
from tests.support.requests.pictures import bad_files, noise_image, png, written_image
from tests.support.servers.media import BACKEND, media_family, projector_of
from tests.support.servers.stack import Answer, Stack

TWIN: Mapping[str, npt.NDArray[np.float32]] = np.load(Path(__file__).parents[2] / "launcher" / "images" / "twin.npz")
SAME = 0.99999
Vectors = npt.NDArray[np.float32]


def image(file: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(file).decode()}


def twin(height: int, width: int) -> dict[str, str]:
    return image(written_image(Image.fromarray(golden_pixels(height, width))))


async def rows(stack: Stack, inputs: object, **fields: object) -> Vectors:
    answer = await stack.post({"input": inputs, **fields})
    assert answer.status == 200, answer.body
    return vectors(answer)


def vectors(answer: Answer) -> Vectors:
    data = answer.json["data"]
    assert isinstance(data, list)
    assert [row["index"] for row in data] == [*range(len(data))]
    return np.array([row["embedding"] for row in data], dtype=np.float32)


def unit(vector: Vectors) -> Vectors:
    return vector / np.linalg.norm(vector)


async def test_an_image_has_the_vector_that_transformers_computes(images: Stack) -> None:
    for height, width in SIZES:
        (vector,) = await rows(images, [twin(height, width)])
        assert vector @ unit(TWIN[f"image_{height}x{width}"]) > SAME, (height, width)


async def test_texts_and_images_in_one_request_have_each_the_vector_that_they_have_alone(images: Stack) -> None:
    inputs = ["a llama", image(png(1)), {"text": "an alpaca"}, image(png(2, 300, 40)), image(png(1)), twin(112, 112)]
    together = await rows(images, inputs)
    alone = np.concatenate([await rows(images, [one]) for one in inputs])
    assert np.einsum("ij,ij->i", together, alone).min() > SAME
    assert (together[1] == together[4]).all()
    assert together[1] @ together[3] < SAME


async def test_an_image_has_no_prefix_and_the_same_vector_for_queries_and_passages(images: Stack) -> None:
    query, passage = [await rows(images, image(png(3)), task=f"retrieval.{role}") for role in ("query", "passage")]
    assert query @ passage[0] > SAME


async def test_dimensions_and_encodings_are_as_for_texts(images: Stack) -> None:
    (whole,) = await rows(images, image(png(4)))
    (part,) = await rows(images, image(png(4)), dimensions=32)
    np.testing.assert_allclose(part, unit(whole[:32]), atol=1e-6)
    answer = await images.post({"input": image(png(4)), "embedding_type": ["base64", "ubinary"]})
    row = answer.json["data"][0]["embedding"]  # type: ignore[index]
    assert np.frombuffer(base64.b64decode(row["base64"]), "<f4").tolist() == whole.tolist()
    assert row["ubinary"] == np.packbits(whole > 0).tolist()
    (raw,) = await rows(images, image(png(4)), normalized=False)
    np.testing.assert_allclose(unit(raw), whole, atol=1e-6)


async def test_usage_counts_the_originals_prompt_and_the_tiles(images: Stack) -> None:
    answer = await images.post({"input": ["a", image(png(5, 56, 56)), twin(140, 252)]})
    text = await images.post({"input": ["a"]})
    assert text.json["usage"]["prompt_tokens"] + 4 + 11 + 45 + 11 == answer.json["usage"]["total_tokens"]  # type: ignore[index]
    assert answer.json["usage"]["image_tokens"] == 49  # type: ignore[index]
    assert "image_tokens" not in text.json["usage"]  # type: ignore[operator]
    counted = await images.post({"input": ["a", image(png(5, 56, 56)), twin(140, 252)]}, "/v1/embeddings/count_tokens")
    assert counted.json["input_tokens"] == answer.json["usage"]["total_tokens"]  # type: ignore[index]


async def test_images_have_a_vector_space_of_their_own_beside_the_texts(images: Stack) -> None:
    of_image, of_text = await images.post({"input": image(png(5))}), await images.post({"input": "a"})
    space = of_image.headers["X-Trillama-Image-Space"]
    assert of_image.headers["X-Trillama-Vector-Space"] == of_text.headers["X-Trillama-Vector-Space"] != space
    assert "X-Trillama-Image-Space" not in of_text.headers
    ready, models = (await images.get("/ready")).json, (await images.get("/v1/models")).json
    assert ready["spaces"]["retrieval"]["images"] == space  # type: ignore[index]
    assert models["data"][0]["provenance"]["image_space"] == space  # type: ignore[index]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"image": "https://example.com/x.png"}, "is a URL, and this server fetches none"),
        ({"image": "ftp://example.com/x.png"}, "is a URL of 'ftp'"),
        ({"image": "not base64!"}, "is neither a URL nor a data URI nor valid base64"),
        ({"image": "_-_-"}, "nor valid base64"),
        ({"image": ""}, "is empty"),
        ({"image": "data:image/png,abc"}, "is a data URI that is not base64"),
        ({"image": "data:image/png;base64,"}, "is empty"),
        ({"image": "a", "text": "b"}, "has both a text and an image"),
        (image(b"<svg/>"), "is SVG"),
        (image(b"\0\0\0\x18ftypheic"), "is HEIC"),
        (image(png(1, 201, 1)), "one side is more than 200 times the other"),
        (image(png()[:3000]), "is a broken or truncated PNG"),
        ({"pdf": "https://example.com/x.pdf"}, "is a PDF"),
    ],
)
async def test_a_bad_image_is_refused_by_its_index_and_fails_no_other(images: Stack, item: object, said: str) -> None:
    refused = await images.post({"input": ["a", item]})
    assert refused.status == 422
    assert f"input.1: {said}" in str(refused.json["detail"]) or said in str(refused.json["detail"])
    partial = await images.post({"input": ["a", item, image(png(6))], "on_error": "partial"})
    assert partial.status == 200, partial.body
    data = partial.json["data"]
    assert isinstance(data, list)
    assert said in data[1]["error"]["message"]
    assert "embedding" in data[0]
    assert "embedding" in data[2]


async def test_late_chunks_are_texts(images: Stack) -> None:
    answer = await images.post({"input": ["a", image(png())], "late_chunking": True, "on_error": "partial"})
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "input.1")  # type: ignore[index]
    assert "late_chunking takes only texts" in str(answer.json["detail"])


async def test_each_token_of_an_images_prompt_has_a_vector(images: Stack, tmp_path: Path) -> None:
    height, width = SIZES[0]
    body = {"input": ["a", twin(height, width), image(b"<svg/>")], "return_multivector": True, "on_error": "partial"}
    answer = await images.post(body)
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert isinstance(data, list)
    made, projector = np.array(data[1]["embeddings"]), projector_of(media_family(tmp_path))
    expected = TWIN["states"] @ projector.weights[BACKEND].T + projector.bias
    assert len(made) > len(expected)  # transformers' states end behind the image, the original's prompt later
    for vector, state in zip(made, expected, strict=False):
        assert vector @ unit(state) > SAME
    assert "is SVG" in data[2]["error"]["message"]
    assert answer.json["usage"]["image_tokens"] == height * width // 28**2  # type: ignore[index]


async def test_a_front_passes_images_on_whole(images: Stack, tmp_path: Path) -> None:
    inputs = ["a llama", image(png(1)), twin(112, 112), "b", image(png(2))]
    async with front({"node": images.url}, family=str(media_family(tmp_path))) as one:
        through = Stack(url=one.url, models={}, engines={})
        assert (await rows(through, inputs) == await rows(images, inputs)).all()
        answers = [await stack.post({"input": inputs}) for stack in (through, images)]
        bad = [await stack.post({"input": ["a", *inputs, {"image": "?"}]}) for stack in (through, images)]
    assert answers[0].json["usage"] == answers[1].json["usage"]
    space = "X-Trillama-Image-Space"
    assert answers[0].headers[space] == answers[1].headers[space]
    assert (bad[0].status, bad[0].json["detail"]) == (bad[1].status, bad[1].json["detail"])


@pytest.mark.parametrize("written", ["data:image/png;base64,{}", "data:;base64,{}", " {}\n", "{}"])
async def test_data_uris_and_base64_with_spaces_are_the_same_image(images: Stack, written: str) -> None:
    code = base64.b64encode(png(7)).decode()
    made = await rows(images, [{"image": written.format(code)}, {"image": f"{code[:40]}\r\n{code[40:]}"}])
    assert (made[0] == made[1]).all()


async def test_equal_pixels_are_computed_once_whatever_their_file(images: Stack) -> None:
    picture = noise_image(8, 84, 56)
    files = [written_image(picture, kind) for kind in ("PNG", "BMP", "TIFF")]
    first = await rows(images, image(files[0]))
    before = await _metric(images, 'trillama_cache_total{result="miss"}')
    others = await rows(images, [image(file) for file in files[1:]])
    assert (others == first).all()
    assert await _metric(images, 'trillama_cache_total{result="miss"}') == before


async def test_a_hundred_bad_files_give_no_5xx_and_texts_go_on(images: Stack) -> None:
    files = [*bad_files(100)]
    answers = await asyncio.gather(*(images.post({"input": image(file)}) for file in files[:50]))
    partial = await images.post({"input": [image(file) for file in files[50:]] + ["a"], "on_error": "partial"})
    assert {answer.status for answer in answers} <= {200, 422}
    assert partial.status == 200
    assert "embedding" in partial.json["data"][-1]  # type: ignore[index]


async def _metric(stack: Stack, name: str) -> float:
    lines = (await stack.get("/metrics")).body.decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
