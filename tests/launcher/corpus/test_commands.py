"""`trillama corpus` as it is typed: exit codes, words, standard input."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from anyio.from_thread import start_blocking_portal

from tests.support.requests.corpus import SOME, jsonl
from tests.support.servers.embeddings_stub import EmbeddingsStub, embeddings_stub
from tests.support.servers.trillama import Run, clean, command, commands


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with commands({}) as run:
        yield run


@pytest.fixture
def stub() -> Iterator[EmbeddingsStub]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(embeddings_stub(EmbeddingsStub())) as one,
    ):
        yield one


def test_a_job_from_run_to_verify(run: Run, stub: EmbeddingsStub, tmp_path: Path) -> None:
    corpus, out = tmp_path / "c.jsonl", str(tmp_path / "out")
    corpus.write_bytes(jsonl(SOME))
    stub.bad = lambda text: text == "text 9"
    ran = run("corpus", "run", str(corpus), "--out", out, "--id", "doc", "--url", stub.url)
    assert ran.code == 3, ran.err
    assert "25 of 25 rows are done, 1 without a vector" in ran.err
    status = run("corpus", "status", out, "--json")
    assert (status.code, json.loads(status.out)["error_rows"]) == (3, 1)
    (error,) = map(json.loads, run("corpus", "errors", out).out.splitlines())
    known = {"input": str(corpus), "row": 9, "id": "d9", "code": "poisoned", "chars": 6}
    assert error == {**known, "message": "it has fallen ill"}
    stub.bad = lambda _: False
    again = run("corpus", "errors", out, "--retry", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out.splitlines()[-1])["error_rows"] == 0
    typed_again = run("corpus", "resume", out)
    assert typed_again.code == 0
    assert "25 of 25 rows are done; nothing was computed" in typed_again.err
    verified = run("corpus", "verify", out)
    assert verified.code == 0, verified.out
    assert "25 rows, each once; every vector is finite; 25 embedded again, least cosine 1.000000" in verified.out
    other = run("corpus", "run", str(corpus), "--out", out, "--url", stub.url)
    assert other.code == 65
    assert "give another --out" in other.err


def test_standard_input_is_kept_so_that_it_can_be_resumed(run: Run, stub: EmbeddingsStub, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    argv = command("corpus", "run", "-", "--out", out, "--url", stub.url, "--format", "npy", "--part-rows", "2")
    done = subprocess.run(argv, input=b"one\ntwo\nthree\n", capture_output=True, env=clean({}), timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    ids = max((tmp_path / "out" / "ids").iterdir())
    ids.unlink()
    assert run("corpus", "status", out).code == 75
    again = run("corpus", "run", "-", "--out", out, "--url", stub.url)
    assert (again.code, "corpus resume" in again.err) == (2, True)
    assert run("corpus", "resume", out).code == 0
    assert stub.asked["three"] == 2


@pytest.mark.parametrize("status", [404, 429, 502])
def test_a_dry_run_says_what_it_would_take(run: Run, stub: EmbeddingsStub, tmp_path: Path, status: int) -> None:
    stub.count_status = status
    corpus = tmp_path / "c.txt"
    corpus.write_text("".join(f"text {row:04}\n" for row in range(1000)) + "\n", encoding="utf-8")
    said = run("corpus", "run", str(corpus), "--out", str(tmp_path / "out"), "--dry-run", "--url", stub.url)
    assert said.code == 0, said.err
    assert "rows             1001, 1 of them without a text" in said.out
    assert "tokens           about 10000" in said.out
    assert "8 dimensions as float32" in said.out
    assert not (tmp_path / "out").exists()
    assert stub.lanes == {"bulk"}


def test_what_is_missing_is_said(run: Run, stub: EmbeddingsStub, tmp_path: Path) -> None:
    none = run("corpus", "status", str(tmp_path))
    assert (none.code, "no corpus was embedded into it" in none.err) == (2, True)
    nothing = run("corpus", "run", str(tmp_path / "c.csv"), "--out", str(tmp_path / "out"), "--url", stub.url)
    assert (nothing.code, "no such file" in nothing.err) == (2, True)
    corpus = tmp_path / "c.jsonl"
    corpus.write_bytes(jsonl(SOME))
    file = run("corpus", "run", str(corpus), "--out", str(corpus / "out"), "--url", stub.url)
    assert (file.code, f"{corpus} is a file, and --out has to be a folder" in file.err) == (2, True)
    wrong = run("corpus", "run", str(corpus), "--text", "nope", "--out", str(tmp_path / "out"), "--url", stub.url)
    assert (wrong.code, "no column 'nope'" in wrong.err, (tmp_path / "out").exists()) == (2, True, False)


def test_later_commands_ask_the_server_of_the_configuration_that_the_job_was_begun_with(
    run: Run, stub: EmbeddingsStub, tmp_path: Path
) -> None:
    """Not one of the default family, whose gigabytes would be fetched first. The printed commands run as printed."""
    corpus, out = tmp_path / "c.jsonl", tmp_path / "my vectors"
    corpus.write_bytes(jsonl(SOME))
    config = tmp_path / "host.toml"
    config.write_text(f'family = "bge-m3"\nport = {stub.url.rsplit(":", 1)[1]}\n')
    stub.bad = lambda text: text == "text 9"
    ran = run("corpus", "run", str(corpus), "--out", str(out), "--config", str(config))
    assert (ran.code, f"see `trillama corpus errors '{out}'`" in ran.err) == (3, True), ran.err
    verified = run("corpus", "verify", str(out))
    assert verified.code == 0, verified.out + verified.err
    stub.bad = lambda _: False
    assert run("corpus", "errors", str(out), "--retry").code == 0
    assert run("corpus", "resume", str(out)).code == 0
    elsewhere = run("corpus", "resume", str(out), "--url", "http://127.0.0.1:9")
    assert (elsewhere.code, "127.0.0.1:9 does not accept connections" in elsewhere.err) == (69, True)


def test_a_format_without_its_package_leaves_no_folder(stub: EmbeddingsStub, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError", encoding="utf-8")  # in front of the real one
    corpus = tmp_path / "c.jsonl"
    corpus.write_bytes(jsonl(SOME))
    with commands({"PYTHONPATH": str(tmp_path)}) as run:
        refused = run("corpus", "run", str(corpus), "--out", str(tmp_path / "out"), "--url", stub.url)
    assert (refused.code, "pip install 'trillama[corpus]'" in refused.err) == (2, True), refused.err
    assert not (tmp_path / "out").exists()


def test_the_first_signal_says_what_it_does(stub: EmbeddingsStub, tmp_path: Path) -> None:
    corpus, sent = tmp_path / "c.jsonl", Event()
    corpus.write_bytes(jsonl(SOME))
    stub.fault = lambda texts: sent.set() if "text 1" in texts else None
    stub.seconds_per_text = 0.1
    argv = command("corpus", "run", str(corpus), "--out", str(tmp_path / "out"), "--url", stub.url)
    with subprocess.Popen(argv, stderr=subprocess.PIPE, env=clean({}), text=True) as job:
        assert sent.wait(30)
        job.send_signal(signal.SIGINT)
        assert job.stderr
        assert "a second Ctrl-C ends it at once" in job.stderr.readline()
        assert job.poll() is None


def test_an_interrupted_dry_run_is_not_done(stub: EmbeddingsStub, tmp_path: Path) -> None:
    corpus, sent = tmp_path / "c.jsonl", Event()
    corpus.write_bytes(jsonl(SOME))
    stub.fault = lambda _: sent.set()
    stub.seconds_per_text = 1
    argv = command("corpus", "run", str(corpus), "--out", str(tmp_path / "out"), "--url", stub.url, "--dry-run")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=clean({}), text=True) as job:
        assert sent.wait(30)
        job.send_signal(signal.SIGINT)
        assert job.stdout
        assert job.stdout.read() == ""
    assert job.returncode == 130
