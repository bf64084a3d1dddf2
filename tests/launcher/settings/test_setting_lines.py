"""The line of a setting, by the sentence about it."""

import pytest

from launcher.settings.setting_lines import line_of

TEXT = """name = "x"
text = '''
pooling = "not this"
'''
adds = [
    "bos",
    "other",
]
[weights]
pooling = "men"
[weights.models.a-b]
repo = 1
[tasks]
"retrieval.query" = { backend = "a", prefix = "" }
"retrieval" = { backend = "b", prefix = "" }
"""


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("name: must not be empty", 1),
        ("adds.1: must be 'bos', 'eos' or 'sep'", 5),
        ("weights.pooling: must be 'mean', 'cls' or 'last'", 10),
        ("weights.quantization: is missing", 9),
        ("weights: models.a-b.repo = 1 is no name", 12),
        ("weights.models.a-b.repo: must be a string", 12),
        ("tasks.retrieval.query.backend names 'a', but there are: b", 14),
        ("tasks.retrieval.backend names 'b', but there are: a", 15),
        ("licence: is missing", None),
        ("names: there is no such setting", None),
    ],
)
def test_the_line_is_that_of_the_setting_or_of_its_table(fault: str, line: int | None) -> None:
    assert line_of(TEXT, fault) == line
