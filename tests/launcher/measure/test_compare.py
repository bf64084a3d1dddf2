"""`trillama compare`: real engines on tiny models, one after the other."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import CorpusError, ModelError
from launcher.measure.compare import as_trained, batch_tokens, batches, check_pair, prefixes
from launcher.measure.sample_texts import SampleText, SampleTexts, built_in, read_sample_texts
from launcher.settings.config import load
from tests.support.models.tiny_models import write_model
from tests.support.servers.serve import empty, gone
from tests.support.servers.trillama import Done, Run, clean, command, commands
from tests.support.sources.hub import Hub, running_hub

FAMILY = load(None).family
CONFIG = {"max_input_tokens": 256, "engine": {"gpu_layers": 0, "threads": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights twice, another seed, another size, and a configuration."""
    folder = tmp_path_factory.mktemp("compared")
    write_model(folder / "f16.gguf", dtype="F16")
    write_model(folder / "q8_0.gguf", dtype="Q8_0")
    write_model(folder / "seed1.gguf", seed=1)
    write_model(folder / "larger.gguf", n_embd=128, heads=8)
    write_model(folder / "qwen2.gguf", architecture="qwen2")
    (folder / "host.toml").write_text(tomli_w.dumps(CONFIG), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def compare(folder: Path, hub: Hub) -> Iterator[Run]:
    """`trillama compare …` of files in `folder`."""
    with commands({**hub.env(folder), "TRILLAMA_CACHE": str(folder), "LOGS_DIRECTORY": str(folder)}) as run:

        def compare(*arguments: str) -> Done:
            paths = [str(folder / one) if one.endswith((".gguf", ".txt")) else one for one in arguments]
            return run("compare", *paths, "--config", str(folder / "host.toml"))

        yield compare


def test_a_file_is_itself(compare: Run) -> None:
    done = compare("f16.gguf", "f16.gguf", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["go"]
    assert facts["drift"]["min"] == pytest.approx(1, abs=1e-6)
    assert facts["own"]["top1"] == facts["own"]["top"] == facts["mixed"]["spearman_min"] == 1
    assert facts["corpus"] == {"name": "built in", "queries": 20, "documents": 60}


def test_a_quantisation_of_the_same_weights_is_a_go_on_a_corpus_of_ones_own(folder: Path, compare: Run) -> None:
    (folder / "own.txt").write_text("\n\n".join(text.text.replace("\n", " ") for text in built_in().documents))
    done = compare("f16.gguf", "q8_0.gguf", "own.txt", "--json", "--backend", "text-matching")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert 0.99 < facts["drift"]["mean"] < 0.999999
    assert facts["drift"]["min"] <= facts["drift"]["median"]
    assert facts["corpus"]["queries"] == facts["corpus"]["documents"] == 60
    assert facts["own"]["spearman_mean"] > 0.98
    assert facts["worst_text"].startswith("line ")


def test_another_model_is_a_no_go_that_says_by_what(compare: Run) -> None:
    done = compare("f16.gguf", "seed1.gguf")
    assert done.code == 1, done.err
    assert done.out.splitlines()[-1].startswith("no-go")
    for words in ("mean cosine", "worst cosine", "top-10 overlap", "B's queries on A's documents"):
        assert words in done.out


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ("larger.gguf", r"larger.gguf \(qwen2vl, 128 dimensions\) cannot be compared with .*f16.gguf \(qwen2vl, 64"),
        ("qwen2.gguf", r"qwen2.gguf \(qwen2, 64 dimensions\) cannot be compared"),
        ("cut.gguf", "cut.gguf: cut off"),
        ("text.gguf", "text.gguf: not a GGUF file"),
        ("missing.gguf", "missing.gguf: cannot be read: No such file"),
    ],
)
def test_files_that_cannot_be_compared_are_refused_with_the_reason(folder: Path, b: str, words: str) -> None:
    (folder / "cut.gguf").write_bytes((folder / "f16.gguf").read_bytes()[:-1000])
    (folder / "text.gguf").write_text("no model")
    with pytest.raises(ModelError, match=words):
        check_pair(folder / "f16.gguf", folder / b, load(None).family.weights)


def test_files_of_another_family_are_refused_as_such(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"its architecture is qwen2, this family's is qwen2vl; give a file of this"):
        check_pair(folder / "qwen2.gguf", folder / "qwen2.gguf", load(None).family.weights)


def test_a_refusal_starts_no_engine_and_has_its_exit_code(compare: Run) -> None:
    different, unknown = compare("f16.gguf", "larger.gguf"), compare("f16.gguf", "Q9_X")
    assert (different.code, "cannot be compared" in different.err) == (66, True)
    assert (unknown.code, "Q9_X: no such file, and jina-embeddings-v4 is offered as F16" in unknown.err) == (66, True)
    assert compare("f16.gguf", "q8_0.gguf", "--backend", "retreival").code == 2


def test_a_damaged_file_ends_with_the_engines_words_or_with_what_is_wrong(folder: Path, compare: Run) -> None:
    content = bytearray((folder / "f16.gguf").read_bytes())
    content[-4096:] = b"\xff" * 4096  # NaN in the last matrix
    (folder / "nan.gguf").write_bytes(content)
    done = compare("f16.gguf", "nan.gguf")
    assert done.code == 70
    assert "B: its vectors are zero or not finite" in done.err

    write_model(folder / "odd.gguf", architecture="qwen2vl", pre="no-such-tokenizer")
    done = compare("odd.gguf", "f16.gguf")
    assert done.code == 75
    assert "A: llama-server exited with 1" in done.err
    assert "unknown pre-tokenizer type" in done.err


@pytest.mark.parametrize(
    ("whom", "signum", "code", "words"),
    [
        ("launcher", signal.SIGINT, 130, ""),
        ("engine", signal.SIGKILL, 70, "A: llama-server was killed by signal 9 on "),
    ],
)
async def test_ctrl_c_and_an_engine_that_dies_end_it_with_nothing_left(
    folder: Path, tmp_path: Path, whom: str, signum: signal.Signals, code: int, words: str
) -> None:
    corpus, config, runtime = tmp_path / "long.txt", tmp_path / "host.toml", Path(tempfile.mkdtemp(prefix="c-"))
    corpus.write_text("\n".join(f"line {i}" for i in range(20_000)), encoding="utf-8")
    config.write_text(tomli_w.dumps({**CONFIG, "runtime_dir": str(runtime)}), encoding="utf-8")
    line = command("compare", *[str(folder / "f16.gguf")] * 2, str(corpus), "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        *line, env=clean({"TRILLAMA_CACHE": str(folder), "LOGS_DIRECTORY": str(folder)}), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        assert process.stderr
        assert await process.stderr.readline() == b"A: 40000 texts\n"  # each line is a query and a document
        children = psutil.Process(process.pid).children(recursive=True)
        (engine,) = [one for one in children if "--model" in one.cmdline()]
        os.kill(engine.pid if whom == "engine" else process.pid, signum)
        _, err = await process.communicate()
    assert (process.returncode, words in err.decode()) == (code, True), err
    await gone(children)
    await empty(runtime)
    runtime.rmdir()


def test_a_text_that_is_too_long_is_named_by_its_line(folder: Path, compare: Run) -> None:
    (folder / "long.txt").write_text("a\nb\n\nc\n" + "длинный " * 200 + "\ne\nf\n", encoding="utf-8")
    done = compare("f16.gguf", "q8_0.gguf", "long.txt")
    assert done.code == 65
    assert "line 5: " in done.err
    assert "256 fit" in done.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\n\n \n", "2 lines with text, at least 5"),
        (b"a\n\xff\n", "not UTF-8 at byte 2"),
        (None, "cannot be read"),
    ],
)
def test_a_corpus_that_is_none_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "corpus.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        read_sample_texts(tmp_path / "corpus.txt")


def test_a_quantisation_is_downloaded(folder: Path, hub: Hub, compare: Run) -> None:
    source = FAMILY.weights.on_hub["code"]
    hub.add(source.repo, source.file.format(quantization="Q8_0"), (folder / "q8_0.gguf").read_bytes())
    done = compare("f16.gguf", "Q8_0", "--backend", "code")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("go")


def test_each_role_has_the_familys_prefix_and_form() -> None:
    assert prefixes(FAMILY, "retrieval") == ("Query: ", "Passage: ")
    assert prefixes(FAMILY, "text-matching") == ("Query: ", "Query: ")
    text = SampleText(name="line 1", text="e\u0301")
    whole = as_trained(SampleTexts(name="", queries=(text,), documents=(text,), paired=True), FAMILY, "code")
    assert (whole.queries[0].text, whole.documents[0].text) == ("Query: é", "Passage: é")
    assert batch_tokens(whole, 8192) == 1024
    assert batch_tokens(whole, 256) == 256


@given(st.lists(st.integers(1, 100), max_size=60), st.integers(1, 20))
def test_every_text_is_in_one_call_and_every_call_fits(lengths: list[int], slots: int) -> None:
    found = batches(lengths, slots=slots, tokens=100)
    assert [number for batch in found for number in batch] == list(range(len(lengths)))
    assert all(len(batch) <= slots and sum(lengths[number] for number in batch) <= 100 for batch in found)
