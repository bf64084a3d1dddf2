"""The family files in `configs/families/`: each loads, and says what is known of its model."""

import re
from pathlib import Path

import pytest

from launcher.errors import ConfigError, ModelError
from launcher.measure.compare import prefixes
from launcher.models import sources
from launcher.planning.request import BITS
from launcher.settings.config import load, read_family, shipped_families
from launcher.settings.family import FamilyFile
from launcher.settings.models import ModelSettings
from proxy.embedding.tasks import TaskTable

SHIPPED = shipped_families()
# What other APIs call a task: every family must know these, or their clients are refused.
FOREIGN = (
    "query document passage search_query search_document RETRIEVAL_QUERY RETRIEVAL_DOCUMENT CODE_RETRIEVAL_QUERY "
    "QUESTION_ANSWERING retrieval.query retrieval.passage"
).split()
SYMMETRIC = "text-matching classification clustering SEMANTIC_SIMILARITY CLASSIFICATION CLUSTERING".split()


def family(name: str) -> FamilyFile:
    return read_family(SHIPPED[name])


def test_the_expected_families_are_shipped() -> None:
    versions = {f"jina-embeddings-v2-base-{language}" for language in ("en", "de", "es", "zh", "code")}
    jina = {"jina-embeddings-v3", "jina-embeddings-v4", "jina-embeddings-v5-text-small", "jina-embeddings-v5-text-nano"}
    code = {"jina-code-embeddings-0.5b", "jina-code-embeddings-1.5b"}
    qwen = {f"qwen3-embedding-{size}" for size in ("0.6b", "4b", "8b")}
    others = {"embeddinggemma-300m", "bge-m3", "nomic-embed-text-v1.5", "snowflake-arctic-embed-l-v2.0"}
    assert SHIPPED.keys() == {*versions, *jina, *code, *qwen, *others, "all-minilm-l6-v2"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_family_loads_by_its_own_name(name: str) -> None:
    loaded = load(None, {"family": family(name).name}).family
    assert loaded.name.casefold() == name
    table = TaskTable(loaded)
    assert loaded.dimensions in loaded.trained_dimensions
    assert table.has_model(loaded.hugging_face_id)
    foreign = FOREIGN if name.startswith("jina-code-") else [*FOREIGN, *SYMMETRIC]
    assert not [task for task in foreign if task not in table.task_names]
    assert sources.model_files(loaded, ModelSettings())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_original_s_tokens_win_where_llama_cpp_s_differ(name: str) -> None:
    """WordPiece's and XLM-RoBERTa's."""
    word_pieces = {"all-minilm-l6-v2", "jina-embeddings-v2-base-en", "nomic-embed-text-v1.5"}
    unigrams = {"bge-m3", "jina-embeddings-v3", "snowflake-arctic-embed-l-v2.0"}
    assert (family(name).tokenizer.words == "original") == (name in word_pieces | unigrams)


@pytest.mark.parametrize("name", SHIPPED)
def test_its_comment_names_the_sources_and_what_nobody_verified(name: str) -> None:
    comment = re.split(r"^[^#]", SHIPPED[name].read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
    comment = comment.replace("\n# ", " ")
    assert "Sources: " in comment
    assert name in {"jina-embeddings-v4", "all-minilm-l6-v2"} or "Not verified by us: " in comment
    non_commercial = "CC BY-NC" in family(name).licence
    assert ("non-commercial use only" in comment) == non_commercial


def test_a_name_that_is_not_shipped_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"there is none of that name, but bge-m3: `trillama families` lists all"):
        load(None, {"family": "bge-m4"})


def test_a_backend_that_needs_a_lora_is_not_served_without_one(tmp_path: Path) -> None:
    v3 = family("jina-embeddings-v3")
    sources.check_loras(v3, ModelSettings(), ["base"])
    with pytest.raises(ModelError, match=r"separation is another model without its LoRA: .* set separation = "):
        sources.check_loras(v3, ModelSettings(), ["base", "separation"])
    own = ModelSettings(lora_files={"separation": tmp_path / "lora.gguf"})
    sources.check_loras(v3, own, ["base", "separation"])
    assert [lora.backend for lora in sources.lora_files(v3, own)] == ["separation"]


def test_an_instruction_of_a_query_may_be_replaced() -> None:
    route = TaskTable(family("qwen3-embedding-0.6b")).route(None, "query")
    usual = "Given a web search query, retrieve relevant passages that answer the query"
    assert route.prefix_with(None) == f"Instruct: {usual}\nQuery:"
    assert route.prefix_with("Find code") == "Instruct: Find code\nQuery:"


def test_the_bits_of_a_weight_are_those_of_published_files() -> None:
    published = family("jina-embeddings-v4").weights.published
    assert published
    files = published.quantizations
    for name in BITS.keys() & files.keys():
        assert files[name].file_gib / files["F16"].file_gib == pytest.approx(BITS[name] / BITS["F16"], rel=0.05), name


def test_compare_takes_the_first_task_of_each_role() -> None:
    gemma, code = family("embeddinggemma-300m"), family("jina-code-embeddings-0.5b")
    assert prefixes(gemma, "embed") == ("task: search result | query: ", "title: none | text: ")
    query = "Find the most relevant code snippet given the following query:\n"
    assert prefixes(code, "code") == (query, "Candidate code snippet:\n")
