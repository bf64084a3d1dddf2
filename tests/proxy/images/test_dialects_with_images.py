"""Images in every dialect that has them: the vector that Jina's has, and refusals by name in the dialect's own form."""

import asyncio
import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.nodes.front import front
from tests.support.polling import until
from tests.support.requests.dialects import embeddings
from tests.support.requests.pdfs import filled, pdf
from tests.support.requests.pictures import noise_image, png, written_image
from tests.support.servers.media import media_family
from tests.support.servers.stack import Stack

DOCS = Path(__file__).parents[3] / "docs"
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (DOCS / "images.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
COMMANDS = [block for block in BLOCKS if block.startswith("curl ")]
CLOSE = 1e-4
FILE = png(1)
CODE = base64.b64encode(FILE).decode()
URI = f"data:image/png;base64,{CODE}"
URL_PART = {"type": "image_url", "image_url": {"url": URI}}
TEXT_PART = {"type": "text", "text": "a llama"}
BOTH = "has both a text and an image, for which the model has no prompt: send two inputs"


async def vector(images: Stack, item: object, **fields: object) -> object:
    """As Jina's dialect answers it, for passages."""
    answer = await images.post({"input": [item], "task": "retrieval.passage", **fields})
    return embeddings(answer)[0]


def close(made: object, expected: object) -> bool:
    return bool(np.allclose(np.asarray(made), np.asarray(expected), atol=CLOSE))


async def test_cohere_takes_data_uris_and_describes_them(images: Stack) -> None:
    grey = base64.b64encode(written_image(noise_image(2, 60, 90).convert("L"), "JPEG")).decode()
    body = {"images": [URI, f"data:image/jpeg;base64,{grey}"], "input_type": "image", "embedding_types": ["float"]}
    answer = (await images.post(body, "/v2/embed")).json
    assert answer["images"] == [
        {"width": 90, "height": 60, "format": "png", "bit_depth": 24},
        {"width": 60, "height": 90, "format": "jpeg", "bit_depth": 8},
    ]
    assert answer["texts"] == []
    assert answer["meta"]["billed_units"] == {"input_tokens": 22, "images": 2, "image_tokens": 12}  # type: ignore[index]
    made = answer["embeddings"]["float"]  # type: ignore[index]
    assert close(made, [await vector(images, {"image": one}) for one in (CODE, grey)])


async def test_coheres_inputs_are_texts_and_images(images: Stack) -> None:
    body = {"inputs": [{"content": [URL_PART]}, {"content": [TEXT_PART]}], "input_type": "search_document"}
    answer = (await images.post(body, "/v2/embed")).json
    made = answer["embeddings"]["float"]  # type: ignore[index]
    assert close(made, [await vector(images, {"image": CODE}), await vector(images, "a llama")])
    first = (await images.post({"images": [URI], "input_type": "image"}, "/v1/embed")).json
    assert close(first["embeddings"], made[:1])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": [{"content": [TEXT_PART]}, {"content": [URL_PART, TEXT_PART]}]}, f"input.1: {BOTH}"),
        ({"inputs": [{"content": [URL_PART, URL_PART]}]}, "input.0: has several images"),
        ({"images": [URI], "texts": ["a"]}, "images: stands beside texts"),
        ({"images": URI}, "images: must be a list of strings"),
        ({"images": [URI, "data:image/png;base64,AAAA"]}, "input.1: is not a readable image"),
        ({"inputs": [{"pdf": CODE}]}, "input.0: is a PDF, which is served at /v1/embeddings only"),
    ],
)
async def test_cohere_refuses_by_name_and_index(images: Stack, body: object, said: str) -> None:
    answer = await images.post(body, "/v2/embed")
    assert answer.status == 422
    assert set(answer.json) == {"id", "message"}
    assert str(answer.json["message"]).startswith(said)


async def test_voyage_takes_one_part_for_each_input(images: Stack) -> None:
    parts = [{"type": "image_base64", "image_base64": URI}, TEXT_PART]
    body = {"inputs": [{"content": [part]} for part in parts], "model": "jina-embeddings-v4", "input_type": "document"}
    answer = await images.post(body, "/v1/multimodalembeddings")
    expected = [await vector(images, {"image": CODE}), await vector(images, "a llama")]
    assert close(embeddings(answer), expected)
    tokens = (await images.post({"input": [{"image": CODE}, "a llama"], "task": "retrieval.passage"})).json["usage"]
    total = tokens["total_tokens"]  # type: ignore[index]
    assert answer.json["usage"] == {
        "text_tokens": total - 6,
        "image_pixels": 6 * 28 * 28,
        "video_pixels": 0,
        "total_tokens": total,
    }
    short = {**body, "output_dimension": 32, "output_dtype": "ubinary", "encoding_format": "base64"}
    bits = embeddings(await images.post(short, "/v1/multimodalembeddings"))
    packed = np.packbits(np.array(expected)[:, :32] > 0, axis=1)
    assert [base64.b64decode(str(one)) for one in bits] == [row.tobytes() for row in packed]


async def test_voyage_refuses_a_text_with_an_image(images: Stack) -> None:
    inputs = [{"content": [TEXT_PART]}, {"content": [{"type": "image_url", "image_url": "https://x/y"}, TEXT_PART]}]
    answer = await images.post({"inputs": inputs}, "/v1/multimodalembeddings")
    assert (answer.status, answer.json["detail"]) == (422, f"input.1: {BOTH}")


async def test_vllms_messages_are_one_text_or_one_image(images: Stack) -> None:
    for content, item in (([URL_PART], {"image": CODE}), ([TEXT_PART], "a llama"), ("a llama", "a llama")):
        body = {"messages": [{"role": "user", "content": content}], "task": "retrieval.passage"}
        (made,) = embeddings(await images.post(body))
        assert close(made, await vector(images, item))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": [{"role": "user", "content": [URL_PART, TEXT_PART]}]}, f"input.0: {BOTH}"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "messages: has several"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages: must be"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages: must be"),
        ({"messages": []}, "messages: must be"),
    ],
)
async def test_other_messages_are_refused(images: Stack, body: object, said: str) -> None:
    answer = await images.post(body)
    assert answer.status == 422
    assert str(answer.json["detail"]).startswith(said)


async def test_infinitys_modality_makes_each_string_an_image(images: Stack) -> None:
    expected = await vector(images, {"image": CODE})
    assert close(await vector(images, URI, modality="image"), expected)
    (alone,) = embeddings(await images.post({"input": URI, "modality": "image", "task": "retrieval.passage"}))
    assert close(alone, expected)


async def test_runpods_worker_takes_images(images: Stack) -> None:
    body = {"input": [{"image": CODE}], "task": "retrieval.passage"}
    expected = [await vector(images, {"image": CODE})]
    output = (await images.post({"input": body}, "/runsync")).json["output"]
    assert close([row["embedding"] for row in output["data"]], expected)  # type: ignore[index]


async def test_batches_take_images_and_pdfs(images: Stack) -> None:
    file = base64.b64encode(pdf(filled(1, 0, 0), b"")).decode()
    items = [{"image": CODE}, {"custom_id": "mine", "image": URI}, {"pdf": file}, {"image": "?"}, "a llama"]
    body = {"input": items, "task": "retrieval.passage"}
    path = f"/v1/batch/{(await images.post(body, '/v1/batch/embeddings')).json['batch_id']}"

    async def ended() -> bool:
        return (await images.get(path)).json["status"] == "completed"

    await until(ended)
    lines = [json.loads(line) for line in (await images.get(f"{path}/output")).body.splitlines()]
    assert [line["custom_id"] for line in lines] == ["request-0", "mine", "request-2", "request-4"]
    made = [[row["embedding"] for row in line["response"]["body"]["data"]] for line in lines]
    assert [len(rows) for rows in made] == [1, 1, 2, 1]
    assert close(made[0], [await vector(images, {"image": CODE})])
    assert made[0] == made[1]
    (failed,) = [json.loads(line) for line in (await images.get(f"{path}/errors")).body.splitlines()]
    assert failed["custom_id"] == "request-3"
    assert "is neither a URL" in json.dumps(failed)


async def test_each_page_of_a_pdf_has_the_vector_of_its_image(images: Stack) -> None:
    pages = [filled(1, 0, 0), filled(0, 0.5, 1)]
    file = base64.b64encode(pdf(*pages)).decode()
    both = embeddings(await images.post({"input": [{"pdf": file}], "task": "retrieval.passage"}))
    alone = [base64.b64encode(pdf(page)).decode() for page in pages]
    assert close(both, [await vector(images, {"pdf": one}) for one in alone])
    assert not close(both[0], both[1])
    answer = (await images.post({"input": {"pdf": f"data:application/pdf;base64,{file}"}})).json
    assert [row["index"] for row in answer["data"]] == [0, 1]  # type: ignore[attr-defined]
    counted = await images.post({"input": {"pdf": file}}, "/v1/embeddings/count_tokens")
    assert answer["usage"]["total_tokens"] == counted.json["input_tokens"]  # type: ignore[index]


async def test_a_front_passes_a_pdf_on_and_describes_no_images(images: Stack, tmp_path: Path) -> None:
    file = base64.b64encode(pdf(filled(1, 0, 0), b"")).decode()
    async with front({"node": images.url}, family=str(media_family(tmp_path))) as one:
        through = Stack(url=one.url, models={}, engines={})
        answers = [embeddings(await stack.post({"input": [{"pdf": file}]})) for stack in (through, images)]
        cohere = (await through.post({"images": [URI]}, "/v2/embed")).json
    assert len(answers[0]) == 2
    assert close(answers[0], answers[1])
    assert "images" not in cohere
    assert cohere["meta"]["billed_units"]["images"] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([{"pdf": base64.b64encode(b"%PDF-1.7\n").decode()}], "input.0: is not a PDF, or a broken one"),
        ([{"pdf": "?"}], "input.0: is neither a URL"),
        (["a", {"pdf": CODE}], "input.1: is a PDF, which must be the only input"),
        ([{"pdf": CODE, "text": "a"}], "input.0: has both a text and a PDF"),
    ],
)
async def test_a_pdf_that_cannot_be_embedded_is_refused(images: Stack, inputs: object, said: str) -> None:
    answer = await images.post({"input": inputs})
    assert answer.status == 422
    assert json.dumps(said)[1:-1] in json.dumps(answer.json["detail"])


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
async def test_a_command_of_the_page_works_as_written(images: Stack, command: str) -> None:
    line = command.replace("http://127.0.0.1:8080", images.url).replace("curl ", "curl --fail-with-body ")
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    output, _ = await shell.communicate()
    assert shell.returncode == 0, output
    assert b"0." in output


async def test_the_gallery_ranks_pictures_and_computes_each_once(images: Stack, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    first, again = [await _gallery(tmp_path, images.url) for _ in range(2)]
    assert first == again
    query = await vector(images, "a llama", task="retrieval.query")
    pictures = [await vector(images, {"image": base64.b64encode(png(number)).decode()}) for number in range(3)]
    cosines = np.array(pictures) @ np.array(query)
    assert [line.split()[1] for line in first] == [f"{number}.png" for number in np.argsort(-cosines)]
    assert [float(line.split()[0]) for line in first] == pytest.approx(sorted(cosines, reverse=True), abs=1e-3)


async def test_the_gallery_says_in_a_line_why_it_cannot(images: Stack, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    for url, words in ((images.url, b"text.png: input.0"), ("http://127.0.0.1:9", b"does not answer")):
        argv = (sys.executable, str(DOCS / "gallery.py"), str(tmp_path), "a llama", "--url", url)
        process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
        assert (process.returncode, words in errors, errors.count(b"\n")) == (1, True, 1), errors


async def _gallery(folder: Path, url: str) -> list[str]:
    argv = (sys.executable, str(DOCS / "gallery.py"), str(folder), "a llama", "--url", url)
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().splitlines()
