"""Counts, limits, truncation and usage are the engine's own to the token, whether we tokenise or the engine does."""

import asyncio
import logging
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import gguf
import orjson
import pytest
from anyio.from_thread import start_blocking_portal

from proxy.contract.settings import BackendSettings
from proxy.errors import BackendUnavailable
from proxy.llama.client import LlamaClient, connect
from proxy.models.readiness import WaitLimits
from proxy.models.served_model import ServedModel
from tests.support.engines.recording import Recorded, recorded
from tests.support.servers.stack import BATCH_TOKENS, FAMILY_FILE, Answer, Stack, family_of
from tests.support.tokens.tiny_bpe import add_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # of aiohttp: here they are

FAMILY = family_of(FAMILY_FILE)
TASKS = ("retrieval.passage", "code.query", "text-matching")  # one of each backend
TEXTS = {
    "special": "<|im_start|>user\n<|im_end|><|endoftext|> <tool_call>x</tool_call> <|im_ start|>",
    "emoji": "👩‍👩‍👧‍👦👍🏽 ❤️ 🇩🇪 text👩🏾‍🔬text",
    "cjk": "我们的模型可以把文本变成向量。日本語のテキスト、한국어 문장입니다",
    "nul": "a\x00b\x00\x00 \x01\x7f",
    "decomposed": "Mu\u0308nchen e\u0301te\u0301",
    "spaces": " two  spaces \t\r\n\n  ",
    "empty": "",
}
FALLBACKS = ("no file", "another vocabulary", "another pre-tokenizer", "an unknown pre-tokenizer", "a missing file")


@pytest.fixture(scope="module")
def through(served: Stack) -> Iterator[Recorded]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(recorded(served, served.models)) as one:
        yield one


async def tokens(served: Stack, text: str, task: str) -> list[int]:
    """The engine's own tokens for the text as that task's model is to see it."""
    row = FAMILY.tasks[task]
    return await served.engines[row.backend].tokenize(unicodedata.normalize("NFC", row.prefix + text))


async def closed(model: ServedModel) -> bool:
    try:
        await model.check()
    except BackendUnavailable:
        return True
    return False


async def sent(through: Recorded, text: str, task: str, **body: object) -> tuple[int, list[int]]:
    """The tokens that we count for a text, and the ids that its backend was given."""
    through.clear()
    answer = await through.stack.post({"input": text, "task": task, "dimensions": 2, **body})
    (ids,) = through.received[FAMILY.tasks[task].backend]
    return used(answer), ids


def used(answer: Answer) -> int:
    assert answer.status == 200, answer.body[:500]
    usage = answer.json["usage"]
    assert isinstance(usage, dict)
    assert usage["total_tokens"] == usage["prompt_tokens"]
    return int(usage["prompt_tokens"])


def long_text(kind: str) -> str:
    generator = random.Random(5)
    words = {
        "words": [
            "the ",
            "quick ",
            "passage ",
            "überfährt ",
            "模型",
            "12345 ",
            "\n\n",
            "👩‍💻",
            "<|im_end|>",
            "def f(x):",
        ],
        "one letter": ["a" * 1000],
        "spaces": [" " * 1000],
        "emoji": ["👩‍👩‍👧‍👦", "🎉"],
        "one word": list("thequickbrownsagerüß"),
    }[kind]
    text = "".join(generator.choices(words, k=2**18 // 3))
    return text.encode()[: 2**18].decode(errors="ignore")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_what_is_counted_and_sent_are_the_engines_tokens(
    through: Recorded, served: Stack, text: str, task: str
) -> None:
    expected = await tokens(served, text, task)
    assert await sent(through, text, task) == (len(expected), expected)


@pytest.mark.parametrize("kind", ["words", "one letter", "spaces", "emoji", "one word"])
async def test_a_text_of_a_quarter_megabyte_is_refused_or_cut_exactly(
    through: Recorded, served: Stack, kind: str
) -> None:
    """Of a text that is so long that nothing needs to be counted, the least that it must have is named."""
    text = long_text(kind)
    expected = await tokens(served, text, "code.passage")
    through.clear()
    refused = await through.stack.post({"input": text, "task": "code.passage"})
    assert (refused.status, refused.json["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    said = re.match(r"input 0 has (more than )?(\d+) tokens; ", str(refused.json["detail"]))
    assert said
    assert BATCH_TOKENS < int(said[2]) <= len(expected)
    assert said[1] or int(said[2]) == len(expected)
    assert not any(through.received.values())
    assert await sent(through, text, "code.passage", truncate=True) == (BATCH_TOKENS, expected[:BATCH_TOKENS])


@pytest.mark.parametrize("task", TASKS)
async def test_the_limit_is_the_last_length_that_passes(through: Recorded, served: Stack, task: str) -> None:
    fits = "7" * (BATCH_TOKENS - len(await tokens(served, "7", task)) + 1)  # a digit is a token
    assert await sent(through, fits, task) == (BATCH_TOKENS, await tokens(served, fits, task))
    answer = await through.stack.post({"input": fits + "7", "task": task})
    assert answer.status == 400
    assert f"input 0 has {BATCH_TOKENS + 1} tokens" in str(answer.json["detail"])


async def test_a_text_that_is_too_long_is_found_before_anything_is_computed(through: Recorded, served: Stack) -> None:
    texts = ["short"] * 40
    texts[17], texts[39] = "1 " * 3000, "2 " * 4000
    through.clear()
    answer = await through.stack.post({"input": texts, "task": "retrieval.query"})
    named = [f"input {i} has {len(await tokens(served, texts[i], 'retrieval.query'))} tokens" for i in (17, 39)]
    assert (answer.status, answer.json["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    assert str(answer.json["detail"]).startswith(", ".join(named))
    assert not any(through.received.values())


async def test_the_usage_of_a_batch_is_the_sum_of_its_rows(through: Recorded, served: Stack) -> None:
    texts = [*TEXTS.values(), "x " * 5000]
    counts = [min(BATCH_TOKENS, len(await tokens(served, text, "text-matching"))) for text in texts]
    answer = await through.stack.post({"input": texts, "truncate": True, "dimensions": 1})
    assert used(answer) == sum(counts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb"cut here \ud83d", "cut here \ufffd"),
        (rb"\ude00\ud83d\ud83c\udf89", "\ufffd\ufffd🎉"),
        (rb"\\ud83d \\\ud83d", "\\ud83d \\\ufffd"),
    ],
)
async def test_half_a_surrogate_pair_is_a_replacement_character(through: Recorded, text: bytes, expected: str) -> None:
    for body in (b'{"input": "%b"}', b'{"input": {"text": "%b"}}', b'{"input": {"content": [{"text": "%b"}]}}'):
        halves, whole = body % text, orjson.dumps({"input": expected})
        through.clear()
        assert used(await through.stack.post(halves)) == used(await through.stack.post(whole))
        first, second = through.received["text-matching"]
        assert first == second


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (rb'{"input": "a", "task": "\ud800"}', 422),
        (rb'{"input": "a", "model": "\ud800"}', 400),
        (rb'{"input": "a", "\ud800": "ignored"}', 200),
        (b'{"input": "\xed\xa0\x80"}', 400),
    ],
)
async def test_half_a_surrogate_pair_elsewhere_is_an_error_of_ours(through: Recorded, body: bytes, status: int) -> None:
    assert (await through.stack.post(body)).status == status


async def test_a_whole_surrogate_pair_is_one_character(through: Recorded) -> None:
    pair, plain = rb'{"input": "\ud83c\udf89", "dimensions": 1}', '{"input": "🎉", "dimensions": 1}'.encode()
    assert used(await through.stack.post(pair)) == used(await through.stack.post(plain))


@pytest.mark.parametrize("kind", FALLBACKS)
async def test_where_our_tokens_would_differ_the_engine_tokenises_and_the_log_says_so(
    served: Stack, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, path = served.engines["code"], unlike(kind, served.models["code"], tmp_path)
    texts = [*TEXTS.values(), "the 12345 foxes and the other"]
    expected = [await engine.tokenize(text) for text in texts]
    settings = BackendSettings(url=engine.url, model_file=path)
    async with connect(LlamaClient, "code", settings) as backend, asyncio.TaskGroup() as group:
        model = ServedModel(backend, FAMILY, WaitLimits(tokens=1000, batch_s=60, start_s=0, recovery_s=0))
        working = group.create_task(model.serve())
        while await closed(model):
            await asyncio.sleep(0.02)
        assert [list(ids) for ids in await model.tokenize(texts)] == expected
        working.cancel()
    logged = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [line for line in logged if "the engine tokenises" in line] == logged
    assert bool(logged) is (kind != "no file")


@pytest.mark.parametrize("kind", ["no file", "another vocabulary"])
async def test_a_proxy_that_asks_the_engine_is_as_exact(served: Stack, tmp_path: Path, kind: str) -> None:
    path = unlike(kind, served.models["code"], tmp_path)
    async with recorded(served, dict.fromkeys(served.engines, path) if path else {}) as other:
        for text in TEXTS.values():
            expected = await tokens(served, text, "code.query")
            assert await sent(other, text, "code.query") == (len(expected), expected)
        await test_the_limit_is_the_last_length_that_passes(other, served, "retrieval.query")
        await test_a_text_that_is_too_long_is_found_before_anything_is_computed(other, served)
        await test_the_usage_of_a_batch_is_the_sum_of_its_rows(other, served)


def unlike(kind: str, model: Path, folder: Path) -> Path | None:
    """A file that does not say how the engine's model tokenises."""
    path = folder / "other.gguf"
    match kind:
        case "no file":
            return None
        case "another vocabulary":
            the, fox, none = (b"\5" + bytes(7) + token.encode() for token in ("Ġthe", "Ġfox", "Ġ\0\0\0"))
            content = model.read_bytes()
            path.write_bytes(content.replace(the, none, 1).replace(fox, the, 1).replace(none, fox, 1))
        case "another pre-tokenizer" | "an unknown pre-tokenizer":
            writer = gguf.GGUFWriter(path, "qwen2vl")
            add_tokenizer(writer, pre="gpt-2" if kind == "another pre-tokenizer" else "tekken", add_bos=False)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.close()
    return path
