"""The demo's models: how they are made, and what their vectors know."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from launcher.models.demo import demo_models
from launcher.models.header_check import check_model
from launcher.settings.config import configs_dir, load
from tests.support.engines.engine import LlamaServer, llama_server

MAKE = (
    "import sys; from pathlib import Path; from launcher.models.demo import demo_models; demo_models(Path(sys.argv[1]))"
)

# A query, and passages of which the first is to be found; the others may share words with it too.
SEARCHES = [
    (
        "overheating lightsaber",
        [
            "What do I do if my lightsaber overheats?",
            "Why is my lightsaber humming so loudly?",
            "How do I brew a good espresso?",
            "My spaceship needs a new hyperdrive.",
            "Le sabre laser est trop chaud.",
        ],
    ),
    ("cheap flights to Paris", ["Paris airfare deals", "chocolate cake recipe", "How to repair a bicycle tyre"]),
    ("How do I bake a cake?", ["chocolate cake recipe", "How do I install Linux?", "What do I do if I am late?"]),
    ("OPENING HOURS", ["opening hours of the museum", "the train station", "closing time"]),
    ("cat", ["Cats and dogs", "category theory", "dogs bark"]),
    ("schnelle Züge nach München", ["Zug München Fahrplan", "Rezept für Apfelkuchen", "fast trains to Munich"]),
    ("我的模型", ["我们的模型可以把文本变成向量", "今天天气很好", "hello world"]),
    ("parse json", ["def parse_json(text): return json.loads(text)", "SELECT * FROM users", "class HttpServer: pass"]),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return demo_models(tmp_path_factory.mktemp("demo"))


async def vectors(server: LlamaServer, texts: list[str]) -> npt.NDArray[np.float32]:
    """Unit vectors, (n, 2048)."""
    raw = await server.embed(texts)
    lengths: npt.NDArray[np.float32] = np.linalg.norm(raw, axis=1, keepdims=True)
    return raw / lengths


def test_they_are_small_whole_files_of_the_family(demo: dict[str, Path]) -> None:
    family = load(configs_dir() / "demo-tiny.toml").family
    assert demo.keys() == family.weights.models.keys()
    for path in demo.values():
        check_model(path, family)
        assert path.stat().st_size < 40e6


def test_they_are_made_once(demo: dict[str, Path]) -> None:
    before = [path.stat() for path in demo.values()]
    assert demo_models(next(iter(demo.values())).parent) == demo
    assert [path.stat() for path in demo.values()] == before


def test_what_an_interrupted_run_left_is_made_again(demo: dict[str, Path], tmp_path: Path) -> None:
    half = demo["code"].read_bytes()[:1000]
    (tmp_path / f"{demo['code'].name}.unfinished").write_bytes(half)

    again = demo_models(tmp_path)

    assert again["code"].read_bytes() == demo["code"].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["lock", *(path.name for path in again.values())])


def test_two_processes_at_once_make_the_same_whole_files(demo: dict[str, Path], tmp_path: Path) -> None:
    running = [subprocess.Popen((sys.executable, "-c", MAKE, str(tmp_path))) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in demo.values())


async def test_a_query_finds_the_passage_that_shares_its_words(demo: dict[str, Path], engine_kind: str) -> None:
    async with llama_server(demo["retrieval"], engine=engine_kind) as server:
        for query, passages in SEARCHES:
            found = await vectors(server, [f"Query: {query}", *(f"Passage: {passage}" for passage in passages)])
            scores = found[1:] @ found[0]
            assert scores[0] > scores[1:].max() + 0.05, (query, scores)


async def test_a_short_vector_still_finds_the_passage(demo: dict[str, Path]) -> None:
    query, passages = SEARCHES[0]
    async with llama_server(demo["retrieval"]) as server:
        raw = await server.embed([f"Query: {query}", *(f"Passage: {passage}" for passage in passages)])
    for dimensions in (128, 256, 512, 1024):
        short = raw[:, :dimensions] / np.linalg.norm(raw[:, :dimensions], axis=1, keepdims=True)
        assert (short[1:] @ short[0]).argmax() == 0, dimensions


async def test_case_does_not_matter_endings_little_and_other_words_much(demo: dict[str, Path]) -> None:
    texts = ["a cheap flight", "A CHEAP FLIGHT", "cheap flights", "chocolate cake"]
    async with llama_server(demo["text-matching"]) as server:
        found = await vectors(server, [f"Query: {text}" for text in texts])
    same, ending, other = found[1:] @ found[0]
    assert same == pytest.approx(1.0, abs=1e-4)
    assert 0.8 < ending < 0.99
    assert abs(other) < 0.15


async def test_the_prefixes_say_nothing(demo: dict[str, Path]) -> None:
    async with llama_server(demo["text-matching"]) as server:
        found = await vectors(server, ["Query: cheap flights", "Passage: cheap flights"])
    assert found[0] @ found[1] == pytest.approx(1.0, abs=1e-4)


async def test_every_text_has_a_finite_vector_that_is_not_zero(demo: dict[str, Path]) -> None:
    texts = [
        "Query: ",
        "Query: a",
        "Query:      ",
        "Query: ?!",
        "Query: 42",
        "Query: \n\t",
        "Query: 😀",
        "x" * 2000,
        ".",
    ]
    async with llama_server(demo["code"]) as server:
        raw = await server.embed(texts)
    assert np.all(np.isfinite(raw))
    for dimensions in (1, 128, 2048):
        assert np.all(np.linalg.norm(raw[:, :dimensions], axis=1) > 1e-5), dimensions


async def test_the_three_models_give_three_vectors(demo: dict[str, Path]) -> None:
    found = []
    for model in demo.values():
        async with llama_server(model) as server:
            found.append((await vectors(server, ["Query: overheating lightsaber"]))[0])
    assert max(abs(found[a] @ found[b]) for a, b in ((0, 1), (0, 2), (1, 2))) < 0.15
