"""A family file that contradicts itself is refused by the name of the setting."""

from pathlib import Path

import pytest

from launcher.errors import ConfigError
from launcher.settings.config import load
from tests.support.models.families import write_family


@pytest.mark.parametrize(
    ("weights", "task", "reason"),
    [
        ({"pooling": "max"}, {}, r"weights\.pooling: .*'mean', 'cls' or 'last'"),
        ({"pooling": "cls"}, {}, r'weights: .*pooling = "cls" needs causal = false'),
        ({"adds": ["pad"]}, {}, r"weights\.adds\.0: .*'bos', 'eos' or 'sep'"),
        ({"rope_scaling": {"type": "yarn", "freq_scale": 4}}, {}, r"weights\.rope_scaling\.freq_scale: .*less than"),
        ({"pooled": "mean"}, {}, r"weights\.pooled"),
        ({}, {"prefix": "{instruction}: "}, r"tasks\.text: .*has no instruction: a task has both, or neither"),
        ({"rope_scaling": {"type": "yarn", "freq_scale": 1e-310}}, {}, r"weights\.rope_scaling\.freq_scale: .*greater"),
        (
            {},
            {"prefix": "{Instruction} "},
            r"tasks\.text: has \{Instruction\} in its prefix, but only \{instruction\} is",
        ),
        ({}, {"prefix": "Instruct: {task_description}"}, r"tasks\.text: has \{task_description\} in its prefix"),
        ({"quantizations": []}, {}, r"weights\.quantizations: must not be empty"),
        ({}, {"instruction": "find"}, r"tasks\.text: .*has no \{instruction\} in its prefix"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, weights: dict[str, object], task: dict[str, str], reason: str) -> None:
    file = write_family(
        tmp_path / "family.toml", {"architecture": "qwen3", **weights}, tasks={"text": {"prefix": "", **task}}
    )
    with pytest.raises(ConfigError, match=rf"family\.toml: {reason}"):
        load(None, {"family": str(file)})


def test_other_braces_in_a_prefix_are_text(tmp_path: Path) -> None:
    tasks = {"text": {"prefix": "{} {1} {instruction} {", "instruction": "a {instruction}"}}
    file = write_family(tmp_path / "family.toml", {"architecture": "qwen3"}, tasks=tasks)
    row = load(None, {"family": str(file)}).family.tasks["text"]
    assert row.whole_prefix == "{} {1} a {instruction} {"


def test_an_alias_cannot_hide_a_task(tmp_path: Path) -> None:
    tasks = {"text": {"prefix": ""}, "query": {"prefix": "query: "}}
    file = write_family(tmp_path / "family.toml", {"architecture": "qwen3"}, tasks=tasks)
    file.write_text(file.read_text(encoding="utf-8") + '[task_aliases]\nquery = "text"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"family\.toml: task_aliases\.query is a task itself"):
        load(None, {"family": str(file)})


def test_every_contradiction_of_names_and_sizes_is_reported_at_once(tmp_path: Path) -> None:
    tasks = {"text": {"prefix": "", "backend": "other"}}
    file = write_family(tmp_path / "family.toml", {"architecture": "qwen3"}, tasks=tasks)
    aliases = '[task_aliases]\na = "x"\nb = "y"\n[model_aliases]\nc = "z"\n'
    file.write_text(file.read_text().replace("dimensions = 64", "dimensions = 32") + aliases)
    with pytest.raises(ConfigError) as caught:
        load(None, {"family": str(file)})
    assert [fault.split(" names")[0] for fault in str(caught.value).removeprefix(f"{file}: ").split("; ")] == [
        "trained_dimensions.0 = 64 is more than dimensions = 32",
        "task_aliases.a",
        "task_aliases.b",
        "model_aliases.c",
        "tasks.text.backend",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'name = "a"\nname = "b"\n', "the same name is there twice (at line 2"),
        (b"[tasks]\n[tasks]", "the same table is there twice (at line 2"),
        (b'name = "a\n', "a quotation mark is missing (at line 1"),
        (b'name = "a"\n# \xfc', "it is not UTF-8 (at line 2)"),
    ],
)
def test_invalid_toml_is_reported_in_plain_words(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "family.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(None, {"family": str(file)})
    assert str(caught.value).startswith(f"{file}: not valid TOML: {said}")


def test_a_file_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "family.toml"
    file.write_text("a = " + "[" * 5000, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"family\.toml: not valid TOML: .*nested too deeply"):
        load(None, {"family": str(file)})
