"""Clients of the batch APIs, of the server that all tests share and of one without models; and a folder with jobs."""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio

from proxy.batches import owner
from tests.proxy.batches.job_folder import Kept, opened
from tests.support.polling import until
from tests.support.servers.stack import BACKENDS, FAMILY_FILE, Answer, Stack, proxy

KEYS = ("mine", "yours")
MAX_FILE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody with a key."""

    stack: Stack
    key: str = KEYS[0]

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        return await self.stack.request(method, path, None if body is None else orjson.dumps(body), headers)

    async def upload(self, *lines: object, purpose: str = "batch") -> Answer:
        """Upload a file of these lines; bytes as they are."""
        content = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
        form = aiohttp.FormData({"purpose": purpose})
        form.add_field("file", io.BytesIO(content), filename="lines.jsonl")
        headers = {"Authorization": f"Bearer {self.key}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.stack.url}/v1/files", data=form, headers=headers) as response,
        ):
            return Answer(status=response.status, headers=response.headers.copy(), body=await response.read())

    async def batch_of(self, *lines: object) -> dict[str, object]:
        """A batch of these lines, when it has ended."""
        file = (await self.upload(*lines)).json["id"]
        body = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        created = await self.ask("POST", "/v1/batches", body)
        assert created.status == 200, created.body
        return await self.ended(f"/v1/batches/{created.json['id']}")

    async def ended(self, path: str) -> dict[str, object]:
        async def status() -> dict[str, object] | None:
            answer = (await self.ask("GET", path)).json
            return answer if answer["status"] in {"completed", "failed", "cancelled"} else None

        return await until(status)

    async def lines(self, file_id: object) -> list[dict[str, object]]:
        """The lines of a file, parsed."""
        answer = await self.ask("GET", f"/v1/files/{file_id}/content")
        assert answer.status == 200, answer.body
        return parsed_lines(answer.body)


def parsed_lines(content: bytes) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in content.splitlines()]


def request_line(custom_id: object, **body: object) -> dict[str, object]:
    """A line of OpenAI's input."""
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def no_models(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A server with two keys whose models never come up: files need none, and jobs wait."""
    folder = tmp_path_factory.mktemp("batches")
    config = {
        "family": str(FAMILY_FILE),
        "backends": {name: {"url": f"unix://{folder}/{name}.sock"} for name in BACKENDS},
        "api_keys": list(KEYS),
        "batches_dir": str(folder / "kept"),
        "max_batch_file_bytes": MAX_FILE_BYTES,
    }
    async with proxy(config, wait=False) as url:
        yield Stack(url=url, models={}, engines={})


@pytest.fixture
def client(served: Stack) -> Client:
    """Somebody who uses the server of all tests."""
    return Client(served)


@pytest.fixture
def waiting(no_models: Stack) -> Client:
    """Somebody whose jobs do not run."""
    return Client(no_models)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A folder with jobs, whose owner looks for new ones often."""
    monkeypatch.setattr(owner, "OWNER_POLL_S", 0.05)
    return opened(tmp_path)
