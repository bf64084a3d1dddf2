"""The requests that the pages show are answered."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.support.servers.stack import Stack

ENGINE_KINDS = ("embedded",)  # what is asked here does not depend on the engine

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "docs" / "late_chunking.md", ROOT / "docs" / "batches.md"]
REQUESTS = [found for page in PAGES for found in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]


@pytest.mark.parametrize("command", REQUESTS)
async def test_a_request_works_as_it_stands(served: Stack, command: str) -> None:
    line = command.replace("http://127.0.0.1:8080", served.url).replace("curl ", "curl --silent --fail-with-body ")
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    output, _ = await shell.communicate()
    assert shell.returncode == 0, output
    assert b'"embedding":[' in output or b'"batch_id":"batch_' in output
