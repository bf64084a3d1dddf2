"""The task table: each name a caller may use leads to one backend and prefix, or to an error that names them all."""

from pathlib import Path

import pytest

from proxy.embedding.tasks import TaskTable
from proxy.errors import ModelNotFound
from proxy.faults import Invalid
from tests.support.servers.stack import family_of

FAMILY = family_of(Path(__file__).parents[3] / "configs" / "families" / "jina-embeddings-v4.toml")


@pytest.fixture(scope="module")
def table() -> TaskTable:
    return TaskTable(FAMILY)


@pytest.mark.parametrize(
    ("model", "task", "role", "backend", "prefix"),
    [
        # the contract's table, row by row
        (None, "retrieval.query", None, "retrieval", "Query: "),
        (None, "retrieval.passage", None, "retrieval", "Passage: "),
        (None, "code.query", None, "code", "Query: "),
        (None, "code.passage", None, "code", "Passage: "),
        (None, "text-matching", None, "text-matching", "Query: "),
        (None, None, None, "text-matching", "Query: "),
        # bare tasks, refined by prompt_name
        (None, "retrieval", None, "retrieval", "Query: "),
        (None, "retrieval", "passage", "retrieval", "Passage: "),
        (None, "code", "passage", "code", "Passage: "),
        (None, "text-matching", "passage", "text-matching", "Query: "),
        (None, None, "passage", "retrieval", "Passage: "),
        (None, "retrieval.query", "passage", "retrieval", "Query: "),
        # older and foreign names
        (None, "classification", None, "text-matching", "Query: "),
        (None, "separation", None, "text-matching", "Query: "),
        (None, "search_document", None, "retrieval", "Passage: "),
        (None, "document", None, "retrieval", "Passage: "),
        (None, "query", None, "retrieval", "Query: "),
        (None, "RETRIEVAL_DOCUMENT", None, "retrieval", "Passage: "),
        (None, "SEMANTIC_SIMILARITY", None, "text-matching", "Query: "),
        (None, "CODE_RETRIEVAL_QUERY", None, "code", "Query: "),
        # the model's suffix, which an explicit task beats
        ("jina-embeddings-v4", None, None, "text-matching", "Query: "),
        ("jina-embeddings-v4:retrieval.passage", None, None, "retrieval", "Passage: "),
        ("jina-embeddings-v4:code.query", None, None, "code", "Query: "),
        ("jina-embeddings-v4-passage", None, None, "retrieval", "Passage: "),
        ("jina-embeddings-v4-query", None, None, "retrieval", "Query: "),
        ("jina-embeddings-v4:retrieval.passage", "code.query", None, "code", "Query: "),
    ],
)
def test_a_request_goes_to_its_backend_with_its_prefix(
    table: TaskTable, model: str | None, task: str | None, role: str | None, backend: str, prefix: str
) -> None:
    route = table.route(model, task, role)
    assert (route.backend, route.prefix) == (backend, prefix)


def test_an_unknown_task_names_the_allowed_ones(table: TaskTable) -> None:
    with pytest.raises(Invalid, match=r"task: unknown task 'poetry'; allowed are: retrieval\.query, .*text-matching"):
        table.route(None, "poetry")


def test_an_unknown_model_names_the_served_ones(table: TaskTable) -> None:
    with pytest.raises(ModelNotFound, match=r"'gpt-4'.*jina-embeddings-v4, jina-embeddings-v4:retrieval\.query"):
        table.route("gpt-4", None)


def test_other_model_names_can_be_mapped_and_take_suffixes() -> None:
    table = TaskTable(FAMILY, model_aliases={"text-embedding-3-small": "jina-embeddings-v4"})
    assert table.route("text-embedding-3-small", None).backend == "text-matching"
    assert table.route("text-embedding-3-small:code.query", None).backend == "code"
