"""Bodies: what is rejected before it is parsed, and lone surrogates where a client cut a text."""

import json
import time
from threading import get_ident, main_thread

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import cohere, gemini, jina, ollama, runpod, tei
from proxy.errors import NotJson
from proxy.faults import Invalid
from proxy.types import EmbedRequest
from proxy.wire.dialect import Parse
from proxy.wire.json_body import MAX_HALVES, MAX_VALUES, has_more, loads, parsed

ITEMS = 16
ESCAPES = st.lists(
    st.sampled_from(
        [r"\ud83d", r"\uDE00", r"\udbff", r"\udfff", r"\\", r"\"", r"\n", r"\u00e9", r"\u005c", "ud83d", "é", "[", "a"]
    ),
    max_size=8,
).map("".join)
JSON = st.recursive(
    st.none() | st.integers(0, 9) | st.text('"\\[]{},:a', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[{a', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(ESCAPES)
def test_each_half_of_a_surrogate_pair_is_one_replacement_character(escapes: str) -> None:
    text = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in json.loads(f'"{escapes}"'))
    assert loads(f'{{"{escapes}": ["{escapes}", 1]}}'.encode()) == {text: [text, 1]}


@pytest.mark.parametrize(
    "body",
    [
        rb'{"input": "\ud83d",}',
        rb'{"input": "\ud83d}',
        rb'"\ud83d\ud8zz"',
        b'{"input": "\xed\xa0\xbd"}',
        rb'["\ud83d", NaN]',
        b'"' + rb"\ud83d" * (MAX_HALVES + 1) + b'"',
        b"",
    ],
    ids=range(7),
)
def test_other_invalid_json_is_still_rejected(body: bytes) -> None:
    with pytest.raises(NotJson, match="the body is not JSON"):
        loads(body)


@given(JSON)
def test_the_values_of_a_body_are_counted_exactly_without_parsing(value: object) -> None:
    body, count, commas = orjson.dumps(value), _count(value), _commas(value)
    assert not has_more(body, count, commas + 1)
    assert not count or has_more(body, count - 1, commas + 1)
    assert has_more(body, count, commas)


def _count(value: object) -> int:
    match value:
        case str():
            return 1
        case list():
            return 1 + sum(map(_count, value))
        case dict():
            return 1 + sum(_count(key) + _count(inner) for key, inner in value.items())
    return 0


def _commas(value: object) -> int:
    match value:
        case list():
            return max(0, len(value) - 1) + sum(map(_commas, value))
        case dict():
            return max(0, len(value) - 1) + sum(map(_commas, value.values()))
    return 0


MANY = 1_000_000
LARGE = {
    "lists": b'{"input":[' + b"[1]," * MANY + b"[1]]}",
    "texts": b'{"input":[' + b'"a",' * MANY + b'"a"]}',
    "texts of escapes": b'{"input":[' + rb'"\\",' * MANY + b'"a"]}',
    "keys": b'{"input":"a",' + b",".join(b'"%d":1' % i for i in range(MANY)) + b"}",
    "objects that are ignored": b'{"input":"a","x":[' + b"{}," * MANY + b"{}]}",
    "values": b'{"input":[' + b"1," * MAX_VALUES + b"1]}",
    "nulls": b'{"input":[' + b"null," * MANY + b"null]}",
    "nulls, partial": b'{"on_error":"partial","input":["a",' + b"null," * MANY + b"null]}",
    "types": b'{"input":"a","embedding_type":[' + b'"xyz",' * MANY + b'"xyz"]}',
    "types of nothing": b'{"input":"a","embedding_type":[' + b"0," * MANY + b"0]}",
    "a model": b'{"input":[],"model":"' + b"a" * MANY + b'"}',
    "a task": b'{"input":"a","task":["' + b"a" * MANY + b'"]}',
    "a number": b'{"input":"a","dimensions":"' + b"1" * MANY + b'"}',
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
async def test_a_large_invalid_body_costs_little_and_gets_a_short_error(body: bytes) -> None:
    await _refused(body, jina.parse)


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (jina.parse, b'{"input":[%b]}'),
        (jina.parse, b'{"input":"a","on_error":"partial","embedding_type":[%b]}'),
        (cohere.parse, b'{"texts":["a"],"embedding_types":[%b]}'),
        (cohere.parse, b'{"inputs":[{"content":[%b]}]}'),
        (gemini.parse_batch, b'{"requests":[%b]}'),
        (gemini.parse, b'{"content":{"parts":[%b]}}'),
        (ollama.parse, b'{"input":[%b]}'),
        (tei.parse, b'{"inputs":[%b]}'),
        (runpod.parse, b'{"input":{"input":[%b]}}'),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("entry", [b"{}", b"[]", b'{"image":1}', b"null"])
async def test_a_fault_in_every_entry_of_a_small_body_costs_little_too(parse: Parse, body: bytes, entry: bytes) -> None:
    await _refused(body % b",".join([entry] * (250_000 // (len(entry) + 1))), parse)


@pytest.mark.parametrize(("count", "in_thread"), [(10, False), (50_000, True)])
async def test_a_small_body_of_many_values_is_parsed_off_the_loop(count: int, in_thread: bool) -> None:
    assert await parsed(orjson.dumps([1] * count), lambda _: get_ident() != main_thread().ident, ITEMS) is in_thread


async def _refused(body: bytes, parse: Parse) -> None:
    began = time.process_time()
    with pytest.raises(Invalid) as refused:
        await parsed(body, parse, ITEMS)
    assert time.process_time() - began < 1
    told = orjson.dumps(refused.value.faults)
    assert len(refused.value.message) + len(told) < 2000
    assert len(refused.value.faults) <= 10


@pytest.mark.parametrize(
    "value",
    ["[{\\" * 300_000, "a" * 600_000, ["word " * 30_000] * ITEMS, list(range(300_000)), [[1, 2] * 30_000] * ITEMS],
    ids=["brackets", "one text", "texts", "ids", "lists of ids"],
)
async def test_a_large_valid_body_is_the_same_request(value: object) -> None:
    request = await _request({"input": value, "metadata": [{"a": "b"}] * 1000})
    many = isinstance(value, list) and not isinstance(value[0], int)
    assert list(request.inputs) == (value if many else [value])


async def _request(body: object) -> EmbedRequest:
    return (await parsed(orjson.dumps(body), jina.parse, ITEMS)).request
