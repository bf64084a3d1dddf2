"""`trillama families` and `trillama families check` as a user runs them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.models.families import write_family
from tests.support.models.tiny_models import write_model
from tests.support.servers.trillama import Run, commands

PAGE = Path(__file__).parents[3] / "docs" / "families.md"
# Of one file at Q8_0, as others have downloaded it.
KNOWN_BYTES = {
    "jina-embeddings-v5-text-small": 4 * 639_447_424,
    "jina-embeddings-v5-text-nano": 4 * 232_883_776,
    "jina-embeddings-v3": 6 * 600_995_424,
    "embeddinggemma-300m": 333_590_944,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    cache = tmp_path_factory.mktemp("cache")
    with commands({"TRILLAMA_CACHE": str(cache), "HF_HOME": str(cache), "COLUMNS": "160"}) as run:
        yield run


def test_the_list_has_what_is_needed_to_choose(run: Run) -> None:
    done = run("families", "--json")
    assert done.code == 0, done.err
    rows = {row["family"]: row for row in json.loads(done.out)}
    for name, size in KNOWN_BYTES.items():
        assert rows[name]["bytes"] == pytest.approx(size, rel=0.02), name
    assert rows["jina-embeddings-v4"]["models"] == 3
    made = rows["all-MiniLM-L6-v2"]["bytes"]
    assert made == pytest.approx(46_223_360, rel=0.02), "it is made at its first start, and its size known before"
    assert all(re.match(r"\d+ tokens|does not fit", row["fits"]) for row in rows.values())
    shown = run("families")
    assert (shown.code, all(name in shown.out for name in rows)) == (0, True)
    tasks = [line for line in shown.out.splitlines() if line.startswith("    ")]
    assert max(map(len, tasks)) <= 80, "a terminal would break a name"
    assert {name for line in tasks for name in line.strip(" ,").split(", ")} >= {
        "code2completion.passage",
        "code.query",
    }


def test_each_fault_of_a_family_file_has_a_line(run: Run, tmp_path: Path) -> None:
    file = write_family(tmp_path / "f.toml", {"architecture": "bert", "poling": "cls", "adds": ["cls"]})
    done = run("families", "check", str(file))
    assert done.code == 78
    lines = file.read_text().splitlines()
    adds, poling = (1 + next(n for n, line in enumerate(lines) if line.startswith(key)) for key in ("adds", "poling"))
    assert done.out.splitlines() == [
        f"fail  {file}:{poling}: weights.poling: there is no such setting; did you mean pooling?",
        f"fail  {file}:{adds}: weights.adds.0: must be 'bos', 'eos' or 'sep'",
    ]
    encoder = run("families", "check", str(write_family(file, {"architecture": "bert"})))
    assert (encoder.code, "bert sees a whole text at once: write causal = false" in encoder.out) == (78, True)
    assert run("families", "check", str(tmp_path / "none.toml")).code == 78
    swapped = run("families", "check", str(tmp_path / "m.gguf"), str(file))
    assert (swapped.code, "is a model file: name the family file first" in swapped.err) == (2, True)


def test_faults_that_serving_survives_are_reported_too(run: Run, tmp_path: Path) -> None:
    """Sizes out of order, and an architecture that is perhaps misspelt: a newer llama.cpp may know it."""
    file = write_family(tmp_path / "f.toml", {"architecture": "qwen33"})
    done = run("families", "check", str(file))
    assert done.code == 0
    assert re.search(
        r"note  \S+f.toml:\d+: weights.architecture: qwen33 is not known here; did you mean qwen3", done.out
    )
    file.write_text(file.read_text().replace("    64,", "    64, 32,"))
    done = run("families", "check", str(file))
    assert (done.code, "trained_dimensions: name each size once, the smallest first" in done.out) == (78, True)


def test_a_model_file_is_compared_with_the_family(run: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.gguf", architecture="qwen3", context=256, pooling="last")
    wrong = write_family(tmp_path / "wrong.toml", {"architecture": "qwen3", "adds": ["eos"]})
    done = run("families", "check", str(wrong), str(model))
    assert done.code == 66
    faults = [line for line in done.out.splitlines() if line.startswith("fail")]
    assert ["pools by last" in faults[0], "adds no EOS" in faults[1], len(faults)] == [True, True, 2]
    right = write_family(tmp_path / "right.toml", {"architecture": "qwen3", "pooling": "last"})
    done = run("families", "check", str(right), str(model))
    assert (done.code, "texts of up to 255 tokens" in done.out) == (0, True)
    model.write_bytes(model.read_bytes()[:-100])
    assert run("families", "check", str(right), str(model)).code == 66


def test_the_example_of_the_page_is_a_family_file(run: Run, tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(name = .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "e5.toml"
    file.write_text(example, encoding="utf-8")
    model = write_model(
        tmp_path / "m.gguf",
        architecture="bert",
        n_embd=384,
        heads=12,
        kv_heads=12,
        context=512,
        add_bos=True,
        add_eos=True,
        pooling="mean",
    )
    done = run("families", "check", str(file), str(model))
    assert done.code == 0, done.out
    shown = done.out.replace(str(file), "e5.toml").replace(str(model), "multilingual-e5-small-Q8_0.gguf")
    assert re.sub(r", [\d.]+ MiB$", "", shown.strip().splitlines()[-1]) in PAGE.read_text(encoding="utf-8")
