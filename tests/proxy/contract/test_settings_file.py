"""Errors in a configuration or a family file use the file's own names, and common spellings are accepted."""

import re
import tomllib
from pathlib import Path

import pytest
import tomli_w

from launcher.errors import ConfigError
from launcher.settings.config import configs_dir, load

FAMILY = tomllib.loads((configs_dir() / "families" / "jina-embeddings-v4.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[proxy]\napi_keys = "one"', "proxy.api_keys: must be a list"),
        ("[proxy]\napi_keys = [1]", "proxy.api_keys.0: must be a string"),
        ('[proxy]\napi_keys = [""]', "proxy.api_keys.0: must not be empty"),
        ("[proxy]\napi_keys = []", "proxy.api_keys: is empty, and would serve everybody"),
        ("[proxy]\napi_keyz = []", "proxy.api_keyz: there is no such setting; did you mean api_keys?"),
        ("proxy = 1", "proxy: must be a table"),
        ('[proxy]\ndefault_task = "dance"', "[proxy] default_task names the task 'dance', but there are: retrieval."),
        ('[proxy.model_aliases]\nz = "other"', "[proxy] model_aliases.z names the model 'other'"),
        ("[proxy]\nport = 1", "[proxy] must not set port"),
        ("prot = 8080", "prot: there is no such setting; did you mean port?"),
        ("[engine]\nslot = 4", "engine.slot: there is no such setting; did you mean slots?"),
        ("[backends.code]\nmoed = 1", "backends.code.moed: there is no such setting; did you mean mode?"),
        ("[backends.cod]\nidle_s = 1", "backends.cod: no such backend; there are retrieval, code, text-matching"),
        ('[models.files]\ncod = "x"', "models.files.cod: no such backend"),
        ('[engine]\nslots = "many"', "engine.slots: must be a whole number"),
        ("[engine]\nslots = 0", "engine.slots: must be greater than 0"),
        ('[engine]\nrequire_gpu = "maybe"', "engine.require_gpu: must be 'auto' or must be true or false"),
        (
            '[engine]\nllama_server = "~nobody-of-that-name/x"',
            "engine.llama_server: ~nobody-of-that-name/x: there is no",
        ),
    ],
)
def test_an_error_uses_the_terms_of_the_file(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "host.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: {said}"), caught.value
    assert "tuple" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (
            "weights.models.code.repo",
            "no repo!",
            "weights.models.code.repo: 'no repo!' is not the name",
        ),
        (
            "weights.models.code.file",
            "x-{typo}.gguf",
            "weights.models.code.file: 'x-{typo}.gguf' has {typo}; only",
        ),
        ("weights.models.code.file", "x-{quantization.gguf", "weights.models.code.file: 'x-{quantization.gguf':"),
        (
            "weights.models.code.file",
            "../{quantization}.gguf",
            "weights.models.code.file: '../{quantization}.gguf'",
        ),
        ("weights.models.code.file", "x.gguf", "weights: models.code.file = 'x.gguf' has no {quantization}"),
        ("weights.quantization", "Q9", "weights: quantization = 'Q9' is none of F16"),
        ("weights.published.benchmarks", ["one"], "weights.published: quantizations.F16.ndcg_at_5 has 5 figures for 1"),
        ("multivector.lora_a", "x.{typo}", "multivector.lora_a: 'x.{typo}' has {typo}; only"),
        ("multivector.lora_b", "x", "multivector.lora_b: 'x' has no {backend}"),
        (
            "tasks.code.query",
            {"backend": "cobol", "prefix": ""},
            "tasks.code.query.backend names 'cobol'",
        ),
        ("tasks.code.query", {"backend": "code"}, "tasks.code.query.prefix: is missing"),
        ("task_aliases.query", "dance", "task_aliases.query names the task 'dance'"),
        ("default_task", "dance", "default_task names the task 'dance'"),
        ("model_aliases.z", "other", "model_aliases.z names the model 'other'"),
        ("name", "../x", "name: '../x' must be letters, digits, '.', '_' and '-', and begin with a letter"),
        ("lisence", "MIT", "lisence: there is no such setting; did you mean licence?"),
        ("dimensions", "2048", "dimensions: must be a whole number"),
        ("dimensions", True, "dimensions: must be a whole number"),
        ("weights.architecture", "", "weights.architecture: must not be empty"),
        ("weights.models.code", {"repo": "a/b"}, "weights.models.code: has no file: a model needs a repo and a file"),
        ("tasks.retrieval", {"query": FAMILY["tasks"]["code.query"]}, "tasks.retrieval: has query in it: a name with"),
        (
            "tasks.code.query",
            {"backend": "code", "prefix": "", "long": {}},
            "tasks.code.query: has long in it: a name with a dot must be in quotes",
        ),
        ("task_aliases.text", {"query": "code.query"}, "task_aliases.text: has query in it: a name with a dot must be"),
        ("model_aliases.jina", {"v4": "x"}, "model_aliases.jina: has v4 in it: a name with a dot must be in quotes"),
    ],
)
def test_every_part_of_a_family_file_is_checked(tmp_path: Path, place: str, value: object, said: str) -> None:
    family = tomllib.loads(tomli_w.dumps(FAMILY))
    table, names = family, [place] if place in family else re.split(r"\.", place, maxsplit=place.count("."))
    names = ["tasks", "code.query"] if place == "tasks.code.query" else names
    for name in names[:-1]:
        table = table[name]
    table[names[-1]] = value
    (tmp_path / "own.toml").write_text(tomli_w.dumps(family), encoding="utf-8")
    (tmp_path / "host.toml").write_text('family = "own.toml"\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "host.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'own.toml'}: {said}"), caught.value


def test_common_spellings_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "host.toml"
    text = '[models]\nquantization = "q4_k_m"\nfiles.code = "~/code.gguf"\n[proxy]\ncache_file = "~/cache"\n'
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())  # as an editor on Windows saves it
    host = load(file).host
    assert host.models.quantization == "Q4_K_M"
    assert host.models.files["code"] == tmp_path / "code.gguf"
    assert host.proxy.cache_file == tmp_path / "cache"
