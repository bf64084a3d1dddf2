"""A family file that contradicts itself is refused by the name of the setting."""

from pathlib import Path

import pytest

from launcher.errors import ConfigError
from launcher.settings.config import load
from tests.support.families import write_family


@pytest.mark.parametrize(
    ("weights", "task", "reason"),
    [
        ({"pooling": "max"}, {}, r"weights\.pooling: .*'mean', 'cls' or 'last'"),
        ({"pooling": "cls"}, {}, r'weights: .*pooling = "cls" needs causal = false'),
        ({"adds": ["pad"]}, {}, r"weights\.adds\.0: .*'bos', 'eos' or 'sep'"),
        ({"rope_scaling": {"type": "yarn", "freq_scale": 4}}, {}, r"weights\.rope_scaling\.freq_scale: .*less than"),
        ({"pooled": "mean"}, {}, r"weights\.pooled"),
        ({}, {"prefix": "{instruction}: "}, r"tasks\.text: .*has no instruction: a task has both, or neither"),
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
    tasks = {"text": {"prefix": "{x} {instruction} {", "instruction": "a {instruction}"}}
    file = write_family(tmp_path / "family.toml", {"architecture": "qwen3"}, tasks=tasks)
    row = load(None, {"family": str(file)}).family.tasks["text"]
    assert row.whole_prefix == "{x} a {instruction} {"
