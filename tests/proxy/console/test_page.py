"""The console's page and its files, and what the routes behind it tell of a real server."""

import orjson

from proxy.http.console.api import MAX_CHARACTERS
from proxy.wire.dialect import MAX_INSTRUCTION
from tests.support.requests.raw import head, said
from tests.support.servers.operated import first_events, rows_of
from tests.support.servers.stack import BACKENDS, Stack

ENGINE_KINDS = ("embedded",)  # these tests do not depend on the engine
HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"  # a browser's


async def test_a_browser_gets_the_page_and_a_client_that_probes_the_short_text(served: Stack) -> None:
    page = await served.get("/", Accept=HTML)
    assert page.headers["Content-Type"].startswith("text/html")
    assert b'src="console/static/app.js"' in page.body
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    for accept in ("*/*", "application/json", "text/plain, text/html;q=0.5"):
        answer = await served.get("/", Accept=accept)
        assert (answer.status, answer.body, answer.headers["Vary"]) == (200, b"Ollama is running", "Accept")


async def test_its_files_are_served_and_no_others(served: Stack) -> None:
    script = await served.get("/console/static/panels/now.js")
    assert (script.status, script.headers["Content-Type"].partition(";")[0]) == (200, "text/javascript")
    for path in ("/", "/console/static/style.css"):
        fresh = await served.get(path, Accept=HTML)
        assert (fresh.status, fresh.headers["Cache-Control"]) == (200, "no-cache")
        cached = await served.get(path, **{"Accept": HTML, "If-None-Match": fresh.headers["ETag"]})
        assert (cached.status, cached.body) == (304, b"")
    for name in ("../state.py", "%2e%2e/state.py", "..%2f__init__.py", "panels", "none.js"):
        answer = await served.get(f"/console/static/{name}")
        assert answer.status == 404
    docs = await served.request("GET", "/docs", None, {})
    assert docs.status == 200  # the client was led to `/`


async def test_the_state_tells_the_truth_of_every_backend(served: Stack) -> None:
    before = (await served.get("/console/state")).json
    sent = await served.post({"input": ["a b c", "d"], "task": "code.query"})
    state = (await served.get("/console/state")).json
    backends = {one["name"]: one for one in rows_of(state, "backends")}
    assert set(backends) == set(BACKENDS)
    code = backends["code"]
    assert (code["state"], code["reason"], code["tasks"]) == ("ready", "", ["code.query", "code.passage"])
    made = code["made"]
    assert isinstance(made, dict)
    assert made["digest"] == sent.headers["X-Trillama-Model-Digest"]
    assert made["space"] == sent.headers["X-Trillama-Vector-Space"]
    usage = sent.json["usage"]
    assert isinstance(usage, dict)
    (old,) = [one for one in rows_of(before, "backends") if one["name"] == "code"]
    assert int(str(code["tokens_total"])) - int(str(old["tokens_total"])) == usage["total_tokens"]
    assert code["lanes"] == {lane: {"requests": 0, "tokens": 0} for lane in ("interactive", "bulk")}
    assert state["admin"] is True  # this machine, and no keys
    assert state["launcher"] is False


async def test_a_request_is_listed_with_what_it_came_to_and_never_its_text(served: Stack) -> None:
    secret = "a text that must not be shown"  # its words
    sent = await served.post({"input": [secret, "b"], "task": "retrieval.query"}, **{"X-Request-ID": "seen-here"})
    usage = sent.json["usage"]
    assert isinstance(usage, dict)
    found = await first_events(served, "/console/events", {"state", "requests"}, {})
    records = found["requests"]
    assert isinstance(records, list)
    (one,) = [record for record in records if record["id"] == "seen-here"]
    assert (one["method"], one["route"], one["status"], one["client"]) == ("POST", "/v1/embeddings", 200, "127.0.0.1")
    assert {**one["usage"], "wait_s": 0, "compute_s": 0} == {
        "task": "retrieval.query",
        "inputs": 2,
        "tokens": usage["total_tokens"],
        "wait_s": 0,
        "compute_s": 0,
    }
    assert 0 <= one["usage"]["wait_s"] < one["seconds"]
    assert 0 < one["usage"]["compute_s"] < one["seconds"]
    assert secret.encode() not in orjson.dumps(found)
    assert not [record for record in records if record["route"].startswith(("/console", "/health", "/ready"))]


async def test_a_head_of_the_stream_has_no_events(served: Stack) -> None:
    answer = await said(served.url, head("Connection: close", method="HEAD", path="/console/events"))
    assert (answer.statuses, answer.data.endswith(b"\r\n\r\n")) == ([200], True)


async def test_the_pieces_of_a_text_are_its_tokens(served: Stack) -> None:
    text = "Naïve 👩‍🔬 Größe,  two spaces"
    answer = await served.post({"input": [text, ""], "task": "retrieval.query"}, "/console/tokens")
    assert answer.status == 200, answer.body
    shown, empty = rows_of(answer.json, "texts")
    counted = (await served.post({"input": [text], "task": "retrieval.query"})).json["usage"]
    assert isinstance(counted, dict)
    pieces = shown["pieces"]
    assert isinstance(pieces, list)
    assert shown["tokens"] == len(pieces) == counted["total_tokens"]
    assert "".join(one["text"] for one in pieces if one["kind"] != "special") == f"Query: {text}"
    assert "".join(one["text"] for one in pieces if one["kind"] == "prefix").strip() == "Query:"
    assert empty["tokens"] == len(empty_pieces := empty["pieces"] if isinstance(empty["pieces"], list) else [])
    assert "text" not in {one["kind"] for one in empty_pieces}
    wrong: list[object] = [[], [1] * 10_000, ["a" * (MAX_CHARACTERS + 1)]]
    for body in (*({"input": one} for one in wrong), {"input": ["a"], "instruction": "a" * (MAX_INSTRUCTION + 1)}):
        refused = await served.post(body, "/console/tokens")
        assert (refused.status, len(refused.body) < 2000) == (422, True)
