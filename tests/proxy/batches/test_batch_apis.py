"""The batch APIs as clients use them, with real engines: every line once, in the end as a direct request's answer."""

import numpy as np
import orjson
import pytest

from proxy.http.batches.files import MAX_NAME
from proxy.wire.form import FORM_BYTES
from tests.proxy.batches.conftest import KEYS, MAX_FILE_BYTES, Client, parsed_lines, request_line
from tests.support.requests.raw import head, said

ENGINE_KINDS = ("embedded",)
TASK = "retrieval.passage"


def matrix(answer: object) -> np.ndarray:
    assert isinstance(answer, dict)
    return np.array([row["embedding"] for row in answer["data"]])


async def test_each_line_is_answered_as_a_direct_request(client: Client) -> None:
    bodies = [{"input": [f"text {n}", f"and {n}"], "task": TASK, "dimensions": 32} for n in range(40)]
    batch = await client.batch_of(*[request_line(f"line-{n}", **body) for n, body in enumerate(bodies)])
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
    assert batch["error_file_id"] is None
    lines = await client.lines(batch["output_file_id"])
    assert [line["custom_id"] for line in lines] == [f"line-{n}" for n in range(40)]
    assert len({line["id"] for line in lines}) == 40
    for line, body in list(zip(lines, bodies, strict=True))[::23]:
        direct = (await client.ask("POST", "/v1/embeddings", body)).json
        response = line["response"]
        assert isinstance(response, dict)
        assert response["status_code"] == 200
        assert response["body"]["usage"] == direct["usage"]
        assert np.abs(matrix(response["body"]) - matrix(direct)).max() < 1e-3


async def test_bad_lines_are_in_the_error_file_and_the_others_are_served(client: Client) -> None:
    batch = await client.batch_of(
        request_line("good", input="a"),
        b"{not json",
        b"",
        request_line("good", input="the same id again"),
        request_line(7, input="a number for an id"),
        {**request_line("chat", input="a"), "url": "/v1/chat/completions"},
        request_line("empty", input=[]),
        request_line("long", input="fuel " * 900),
        request_line("last", input="b"),
    )
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 8, "completed": 2, "failed": 6}
    assert [line["custom_id"] for line in await client.lines(batch["output_file_id"])] == ["good", "last"]
    errors = await client.lines(batch["error_file_id"])
    codes = [line["error"] and line["error"]["code"] for line in errors]  # type: ignore[index]
    assert codes == [
        *("invalid_json_line", "duplicate_custom_id", "missing_custom_id", "invalid_url"),
        *(None, None),
    ]
    empty, long = (line["response"] for line in errors[-2:])
    assert isinstance(empty, dict)
    assert isinstance(long, dict)
    assert (empty["status_code"], empty["body"]["errors"][0]["field"]) == (422, "input")
    assert (long["status_code"], long["body"]["error"]["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")


async def test_jinas_batch_is_the_same_job_by_another_name(client: Client) -> None:
    items = ["a", {"text": "b"}, {"custom_id": "mine", "body": {"input": "c"}}, {"picture": "x"}]
    refused = await client.ask("POST", "/v1/batch/embeddings", {"input": items})
    assert refused.status == 422
    assert refused.json["errors"][0]["field"] == "input.3"  # type: ignore[index]
    body = {"input": [*items[:3], {"custom_id": "bad", "body": {"input": []}}], "task": TASK, "dimensions": 16}
    submitted = await client.ask("POST", "/v1/batch/embeddings", body)
    assert submitted.status == 202
    assert submitted.json["status"] == "pending"
    path = f"/v1/batch/{submitted.json['batch_id']}"
    status = await client.ended(path)
    stats = status["stats"]
    assert isinstance(stats, dict)
    assert (stats["total"], stats["completed"], stats["failed"], stats["total_tokens"] > 3) == (4, 3, 1, True)
    assert status["output_url"] == f"{path}/output"
    output = parsed_lines((await client.ask("GET", f"{path}/output")).body)
    assert [line["custom_id"] for line in output] == ["request-0", "request-1", "mine"]
    direct = (await client.ask("POST", "/v1/embeddings", {**body, "input": ["a", "b", "c"]})).json
    found = np.concatenate([matrix(line["response"]["body"]) for line in output])  # type: ignore[index]
    assert np.abs(found - matrix(direct)).max() < 1e-3
    errors = parsed_lines((await client.ask("GET", f"{path}/errors")).body)
    assert [line["custom_id"] for line in errors] == ["bad"]
    as_openai = (await client.ask("GET", f"/v1/batches/{status['batch_id']}")).json
    assert as_openai["request_counts"] == {"total": 4, "completed": 3, "failed": 1}
    deleted = await client.ask("DELETE", path)
    assert deleted.status == 200
    assert (await client.ask("GET", path)).status == 404


@pytest.mark.parametrize(
    "wrong",
    [{"task": "retreival.passage"}, {"model": "gpt-4"}, {"dimensions": 4096}, {"embedding_type": "float16"}],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_what_would_fail_every_line_is_refused_at_once_as_a_direct_request(
    client: Client, wrong: dict[str, object]
) -> None:
    direct = await client.ask("POST", "/v1/embeddings", {"input": "a", **wrong})
    batch = await client.ask("POST", "/v1/batch/embeddings", {"input": ["a"], **wrong})
    assert (batch.status, batch.json["error"]) == (direct.status, direct.json["error"])
    assert batch.status in (400, 422)


@pytest.mark.parametrize("field", ["input_url", "input_file", "webhook_url"])
async def test_no_address_is_fetched_or_called(client: Client, field: str) -> None:
    answer = await client.ask("POST", "/v1/batch/embeddings", {"input": ["a"], field: "http://127.0.0.1/secret"})
    assert answer.status == 422
    assert answer.json["error"]["param"] == field  # type: ignore[index]


@pytest.mark.parametrize("field", ["model", "task", "embedding_type"])
async def test_what_each_line_gets_a_copy_of_is_short(client: Client, field: str) -> None:
    answer = await client.ask("POST", "/v1/batch/embeddings", {"input": ["a"], field: "x" * 10_000})
    assert answer.status == 422
    assert answer.json["error"]["param"].startswith(field)  # type: ignore[index]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_key_sees_only_what_is_its_own(waiting: Client) -> None:
    file = (await waiting.upload(request_line("a", input="a"))).json["id"]
    body = {"input_file_id": file, "endpoint": "/v1/embeddings", "metadata": {"for": "me"}}
    batch = (await waiting.ask("POST", "/v1/batches", body)).json
    assert (batch["status"], batch["metadata"]) == ("validating", {"for": "me"})
    other = Client(waiting.stack, KEYS[1])
    paths = [f"/v1/batches/{batch['id']}", f"/v1/batch/{batch['id']}", f"/v1/files/{file}", f"/v1/files/{file}/content"]
    assert [(await waiting.ask("GET", path)).status for path in paths] == [200] * 4
    assert [(await other.ask("GET", path)).status for path in paths] == [404] * 4
    assert (await other.ask("POST", "/v1/batches", body)).status == 404
    assert (await other.ask("POST", f"/v1/batches/{batch['id']}/cancel")).status == 404
    for path in ("/v1/batches", "/v1/files"):
        assert (await other.ask("GET", path)).json["data"] == []
        assert (await waiting.stack.get(path)).status == 401
    assert (await waiting.ask("GET", f"/v1/batch/{batch['id']}/output")).status == 404  # not yet
    cancelled = (await waiting.ask("POST", f"/v1/batches/{batch['id']}/cancel")).json
    assert cancelled["status"] == "cancelling"
    assert (await waiting.ended(f"/v1/batches/{batch['id']}"))["status"] == "cancelled"


@pytest.mark.asyncio(loop_scope="session")
async def test_files_are_listed_read_and_deleted(waiting: Client) -> None:
    line = request_line("a", input="a")
    made = [(await waiting.upload(line)).json for _ in range(3)]
    assert made[0]["bytes"] == len(orjson.dumps(line))
    assert {made[0][name] for name in ("object", "purpose", "filename")} == {"file", "batch", "lines.jsonl"}
    ids = [one["id"] for one in reversed(made)]
    page = (await waiting.ask("GET", "/v1/files?limit=2&purpose=batch")).json
    assert [row["id"] for row in page["data"]] == ids[:2]  # type: ignore[attr-defined]
    assert page["has_more"] is True
    rest = (await waiting.ask("GET", f"/v1/files?purpose=batch&after={ids[1]}")).json
    assert rest["data"][0]["id"] == ids[2]  # type: ignore[index]
    assert await waiting.lines(ids[0]) == [line]
    key = f"Authorization: Bearer {KEYS[0]}"
    asked = head(key, "Connection: close", method="HEAD", path=f"/v1/files/{ids[0]}/content")
    answer = await said(waiting.stack.url, asked)
    assert f"Content-Length: {len(orjson.dumps(line))}\r\n".encode() in answer.data
    assert answer.data.endswith(b"\r\n\r\n")
    deleted = await waiting.ask("DELETE", f"/v1/files/{ids[0]}")
    assert deleted.json == {"id": ids[0], "object": "file", "deleted": True}
    assert (await waiting.ask("GET", f"/v1/files/{ids[0]}")).status == 404
    assert (await waiting.ask("GET", "/v1/files?limit=0")).json["error"]["param"] == "limit"  # type: ignore[index]
    assert (await waiting.ask("GET", "/v1/files/..%2F..%2Fowner.lock/content")).status == 404


@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_no_file_of_a_batch_is_refused_by_name(waiting: Client) -> None:
    for more in (1, 2 * FORM_BYTES):  # than the file may have, and than the whole form may
        large = await waiting.upload(b"x" * (MAX_FILE_BYTES + more))
        assert (large.status, str(large.json["detail"]).endswith(": send several files")) == (413, True)
    assert (await waiting.upload(b"x", purpose="fine-tune")).json["error"]["param"] == "purpose"  # type: ignore[index]
    assert (await waiting.ask("POST", "/v1/files", {"file": "x"})).json["error"]["param"] == "file"  # type: ignore[index]
    headers = {"Authorization": f"Bearer {KEYS[0]}", "Content-Type": "multipart/form-data; boundary=x"}
    broken = await waiting.stack.request("POST", "/v1/files", b"no boundary at all", headers)
    assert (broken.status, broken.json["code"]) == (400, "INVALID_REQUEST")
    for part in (
        b"A: " + b"b" * 9000,
        b"A: b\r\n" * 200,
        b"nonsense",
        b"A: b\r\n c",
        b'B: form-data; name="_charset_"',
    ):
        broken = await waiting.stack.request("POST", "/v1/files", b"--x\r\n" + part + b"\r\n\r\n?\r\n--x--", headers)
        assert (broken.status, broken.json["code"]) == (400, "INVALID_REQUEST")
    listed = (await waiting.ask("GET", "/v1/files")).json["data"]
    assert all(len(row["filename"]) <= MAX_NAME and row["bytes"] < MAX_FILE_BYTES for row in listed)  # type: ignore[attr-defined]


async def test_a_job_that_cannot_begin_says_why(client: Client) -> None:
    unknown = {"input_file_id": "file-" + "0" * 32, "endpoint": "/v1/embeddings"}
    assert (await client.ask("POST", "/v1/batches", unknown)).json["error"]["param"] == "input_file_id"  # type: ignore[index]
    chat = {**unknown, "endpoint": "/v1/chat/completions"}
    assert (await client.ask("POST", "/v1/batches", chat)).json["error"]["param"] == "endpoint"  # type: ignore[index]
    batch = await client.batch_of(b"\n\n")
    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["code"] == "empty_file"  # type: ignore[index]


@pytest.mark.parametrize(
    "metadata", [{"k" * 100_000 + str(n): 1 for n in range(16)}, dict.fromkeys(map(str, range(50_000)), 1)]
)
async def test_wrong_metadata_gets_a_short_error(client: Client, metadata: dict[str, int]) -> None:
    body = {"input_file_id": "file-1", "endpoint": "/v1/embeddings", "metadata": metadata}
    answer = await client.ask("POST", "/v1/batches", body)
    assert (answer.status, answer.json["error"]["param"]) == (422, "metadata")  # type: ignore[index]
    assert len(answer.body) < 10_000


async def test_metrics_count_jobs_and_lines(client: Client) -> None:
    await client.batch_of(request_line("a", input="a"), b"no json")
    text = (await client.ask("GET", "/metrics")).body.decode()
    assert 'trillama_batch_jobs{state="completed"}' in text
    assert 'trillama_batch_lines_total{result="failed"}' in text
