"""Token ids of OpenAI's clients mean the text that they stand for, or are refused by index."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tiktoken import Encoding
from tiktoken.load import load_tiktoken_bpe

from proxy.tokens import foreign_ids
from tests.support.requests.client import embed
from tests.support.servers.stack import BATCH_TOKENS, FAMILY_FILE, Stack, proxy

ENGINE_KINDS = ("embedded",)  # what is asked here does not depend on the engine

TEXT = "Grüße aus Köln, 我们的模型 🎉 def embed(self): <|endoftext|>"


@pytest.fixture(scope="module")
def cl100k() -> Encoding:
    """tiktoken's own encoding, from the same file."""
    (path,) = [path for path in foreign_ids._places() if path.is_file()]  # noqa: SLF001 # where it is, is not for users
    ranks = load_tiktoken_bpe(str(path), expected_hash=foreign_ids.CL100K_SHA256)
    pattern = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s"""
    special = {token.decode(): number for number, token in foreign_ids.SPECIAL.items()}
    return Encoding("cl100k_base", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


async def test_ids_give_the_vector_of_their_text_in_every_shape(served: Stack, cl100k: Encoding) -> None:
    ids = cl100k.encode(TEXT, allowed_special="all")
    (expected,) = await embed(served, [TEXT], task="retrieval.passage")
    one = await served.post({"input": ids, "task": "retrieval.passage"}, Accept="application/octet-stream")
    mixed = await served.post(
        {"input": [ids, "other", ids[:3]], "task": "retrieval.passage"}, Accept="application/octet-stream"
    )
    (vector,), rows = (np.frombuffer(answer.body, "<f4").reshape(-1, 2048) for answer in (one, mixed))
    assert len(rows) == 3
    assert vector @ expected > 0.99999
    assert rows[0] @ expected > 0.99999
    assert rows[2] @ (await embed(served, [cl100k.decode(ids[:3])], task="retrieval.passage"))[0] > 0.99999


async def test_a_character_that_was_cut_in_two_is_still_answered(served: Stack, cl100k: Encoding) -> None:
    ids = cl100k.encode("🎉🎊")
    assert (await served.post({"input": [ids[:1]]})).status == 200


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([5, 100300], "input.0"),
        ([5, 2**40], "input.0"),
        ([5, -1], "input.0"),
        (["a", [100256]], "input.1"),
        ([[5], []], "input.1"),
        ([], "input"),
        (["a", 5, "b"], "input.1"),
        ([[5, "a"]], "input.0"),
        ([[5, True]], "input.0"),
        ([[5.5]], "input.0"),
        ([[[5]]], "input.0"),
    ],
)
async def test_what_is_no_id_of_the_vocabulary_is_refused_by_index(served: Stack, value: object, field: str) -> None:
    answer = await served.post({"input": value})
    assert answer.status == 422, answer.body
    errors = answer.json["errors"]
    assert isinstance(errors, list)
    assert errors[0]["field"] == field


async def test_more_ids_than_the_served_length_are_a_400_or_truncated(served: Stack, cl100k: Encoding) -> None:
    ids = (cl100k.encode("overheating lightsaber ") * 8191)[:8191]
    refused = await served.post({"input": ["a", ids]})
    assert (refused.status, refused.json["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    assert "input 1 has" in str(refused.json["detail"])
    cut = await served.post({"input": [ids], "truncate": True, "dimensions": 2})
    assert cut.json["usage"] == {"prompt_tokens": BATCH_TOKENS, "total_tokens": BATCH_TOKENS}


@pytest.mark.parametrize("policy", ["model", "refuse"])
async def test_a_server_can_take_the_models_own_ids_or_none(served: Stack, policy: str) -> None:
    engine, text = served.engines["retrieval"], "the passage"
    backends = {
        name: {"url": one.url, "batch_tokens": BATCH_TOKENS, "model_file": str(served.models[name])}
        for name, one in served.engines.items()
    }
    async with proxy({"family": str(FAMILY_FILE), "backends": backends, "token_ids": policy}) as url:
        other = Stack(url=url, models=served.models, engines=served.engines)
        body = {"input": await engine.tokenize(text), "task": "retrieval.query"}
        answer = await other.post(body, Accept="application/octet-stream")
        beyond = await other.post({"input": [2**40]})
    assert beyond.status == 422
    if policy == "refuse":
        assert answer.status == 422
        assert "check_embedding_ctx_length=False" in str(answer.json["detail"])
    else:
        (expected,) = await embed(served, [text], task="retrieval.query")
        assert np.frombuffer(answer.body, "<f4") @ expected > 0.99999


@pytest.mark.parametrize("damaged", [False, True])
def test_without_a_sound_file_there_is_no_decoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damaged: bool
) -> None:
    if damaged:
        (tmp_path / foreign_ids.CACHED_AS).write_bytes(b"IQ== 0\n")
    monkeypatch.setitem(os.environ, "TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "tiktoken_ext", raising=False)
    assert foreign_ids.cl100k() is None
