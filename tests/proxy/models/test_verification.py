"""A backend gets the original's tokens where the family wants them, else the engine's, and never others in silence."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.contract.family import Family, TokenizerRules, Words
from proxy.contract.settings import BackendSettings
from proxy.errors import BackendError
from proxy.llama.client import LlamaClient, connect
from proxy.models.verification import NoTokenizer, VerifiedBackend, verify_backend
from proxy.tokens.gguf_tokenizer import Tokenizer
from tests.support.engines.engine import LlamaServer, llama_server
from tests.support.servers.stack import FAMILY_FILE, family_of
from tests.support.tokens.vocabularies import original, texts, write_encoder, write_vocabulary

DIMENSIONS = 32
HANGUL = "한국어 문장입니다. 안녕하세요 각힣"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "model.gguf", original("wordpiece"), n_embd=DIMENSIONS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path) -> AsyncIterator[LlamaServer]:
    async with llama_server(model, batch_tokens=512) as server:
        yield server


def family(words: Words) -> Family:
    update = {"dimensions": DIMENSIONS, "tokenizer": TokenizerRules(words=words)}
    return family_of(FAMILY_FILE).model_copy(update=update)


async def verified(engine: LlamaServer, words: Words, model_file: Path | None) -> VerifiedBackend:
    settings = BackendSettings(url=engine.url, model_file=model_file, batch_tokens=512)
    async with connect(LlamaClient, "encoder", settings) as backend:
        return await verify_backend(backend, family(words))


async def test_the_originals_tokens_are_served_where_llama_cpp_makes_others(
    engine: LlamaServer, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "proxy")
    backend = await verified(engine, "original", model)
    ids = [list(row) for row in await backend.tokenize(texts())]
    assert ids == original("wordpiece").ids
    assert ids[texts().index(HANGUL)] != await engine.tokenize(HANGUL)
    (line,) = [record for record in caplog.records if "original" in record.message]
    assert line.levelno == logging.DEBUG, "it is as it should be: nobody has to read it at each start"
    assert "我们的模型" in line.message
    assert "हिन्दी" in line.message


async def test_without_that_the_engine_tokenises_and_the_log_says_which_text_differed(
    engine: LlamaServer, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = await verified(engine, "engine", model)
    assert isinstance(backend.tokenizer, NoTokenizer)
    assert "the engine tokenises, because our tokens differ" in backend.tokenizer.reason
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "한국어" in warning
    assert '[tokenizer] words = "original" in the family file serves the original\'s): the engine tokenises' in warning


async def test_the_originals_tokens_are_refused_by_name_where_they_cannot_be_right(
    engine: LlamaServer, tmp_path: Path
) -> None:
    whole = original("wordpiece")
    the, fox = whole.tokens.index("▁the"), whole.tokens.index("▁fox")
    swapped = [{the: "▁fox", fox: "▁the"}.get(i, token) for i, token in enumerate(whole.tokens)]
    other = write_vocabulary(tmp_path / "other.gguf", whole.model_copy(update={"tokens": swapped}))
    larger = whole.model_copy(update={"tokens": [*whole.tokens, "▁more"], "types": [*whole.types, 1]})
    cases = {
        None: "no model_file is set",
        tmp_path / "missing.gguf": "No such file",
        other: "differ from the engine's for 'Query: the quick brown fox",
        write_vocabulary(tmp_path / "larger.gguf", larger): "invalid tokens",
    }
    for file, reason in cases.items():
        with pytest.raises(BackendError, match=reason):
            await verified(engine, "original", file)


async def test_a_vector_is_that_of_the_originals_tokens(engine: LlamaServer, model: Path) -> None:
    settings = BackendSettings(url=engine.url, model_file=model, batch_tokens=512)
    async with connect(LlamaClient, "encoder", settings) as backend:
        served = await verify_backend(backend, family("original"))
        vectors = await backend.embed(await served.tokenize([HANGUL]))
    ids = original("wordpiece").ids[texts().index(HANGUL)]
    assert vectors.tolist() == (await engine.embed([ids])).tolist()


@pytest.mark.parametrize(("name", "words"), [("unigram", "original"), ("spm", "engine")])
async def test_other_kinds_are_verified_with_llama_cpp(tmp_path: Path, name: str, words: Words) -> None:
    model = write_encoder(tmp_path / "model.gguf", original(name), n_embd=DIMENSIONS)
    async with llama_server(model, batch_tokens=512) as engine:
        backend = await verified(engine, words, model)
        assert isinstance(backend.tokenizer, Tokenizer)
        assert [list(row) for row in await backend.tokenize(texts())] == original(name).ids
        if words == "engine":
            assert [await engine.tokenize(text) for text in texts()] == original(name).ids
