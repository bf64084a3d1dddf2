"""The whole API against its own OpenAPI document, by schemathesis."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.stack import small_family, stack

KEY = "right"
TIMEOUT_S = 300  # some thousand requests: a minute on a quiet machine
# Of handlers that have a first one, and of those that answer as the one beside them does.
SECOND_PATHS = (
    r"^(/v2/\{endpoint\}/.*|/openai/.*|/v1beta/openai/.*|/v1/models/.*:.*|/embeddings|/models|/"
    r"|/v1/(files|batches|batch)/\{id\}/.+)$"
)


@pytest.mark.timeout(TIMEOUT_S + 60)
async def test_schemathesis_finds_no_fault(tmp_path: Path) -> None:
    """No 5xx, no undocumented status, type or shape, no valid body refused, no way in without the key.

    That a body outside the schema is refused is not asked: the server reads "128" and "yes" as what they mean.
    One worker: with two, CPython 3.11's ast.parse failed in hypothesis ("recursion depth mismatch").
    """
    family, models = small_family(tmp_path)
    async with stack("embedded", models, family=family, api_keys=[KEY], batches_dir=str(tmp_path / "b")) as small:
        argv = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{small.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {KEY}", "--exclude-checks", "negative_data_rejection"),
            *("--phases", "examples,coverage", "--max-examples", "4", "--seed", "1", "--workers", "1"),
            *("--exclude-path-regex", SECOND_PATHS, "--generation-database", "none", "--warnings", "off", "--no-color"),
        ]
        ran = await asyncio.to_thread(
            subprocess.run,
            argv,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout.decode(errors="replace")[-6000:]
