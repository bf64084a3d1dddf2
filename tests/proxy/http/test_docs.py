"""The commands of a docs page run."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.stack import Stack

PAGE = Path(__file__).parents[3] / "docs" / "late_chunking.md"
ENGINE_KINDS = ("embedded",)


def test_the_chat_is_drawn_both_ways(served: Stack) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    env = {**os.environ, "TRILLAMA": served.url, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    question, heads, *messages = done.stdout.splitlines()
    assert question == "What are some good restaurant recommendations?"
    assert heads.split("  ")[0] == "one by one"
    pairs = [re.findall(r"-?\d\.\d\d", line)[:2] for line in messages]
    assert len(pairs) == 8
    assert pairs[0] != pairs[1]
    assert any(before != after for before, after in pairs)
