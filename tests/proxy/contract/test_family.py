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


def test_a_file_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "family.toml"
    file.write_text("a = " + "[" * 5000, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"family\.toml: not valid TOML: .*nested too deeply"):
        load(None, {"family": str(file)})
