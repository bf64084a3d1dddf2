"""What may change between two runs of a job, and how it is said that something else did."""

import os
from pathlib import Path

import pytest

from launcher.corpus.output.stored import VectorType
from launcher.corpus.plan import JobOptions
from launcher.corpus.rows import inputs
from launcher.corpus.rows.records import UsedColumns
from launcher.errors import CorpusError
from tests.support.requests.corpus import resume_corpus, run_corpus
from tests.support.servers.embeddings_stub import EmbeddingsStub

IDS = UsedColumns(id="doc", keep=("year",))
TEN = JobOptions(part_rows=10)


async def test_what_changed_is_named_in_the_refusal(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await run_corpus(stub, out, corpus)
    with pytest.raises(CorpusError, match="begun with --dtype float32, and this is with --dtype int8"):
        await run_corpus(stub, out, corpus, options=TEN.model_copy(update={"dtype": VectorType.INT8}))
    with pytest.raises(CorpusError, match="begun without --id, and this is with --id doc"):
        await run_corpus(stub, out, corpus, columns=IDS)
    stub.dimensions = 4
    with pytest.raises(CorpusError, match="number of dimensions was 8 when the job began, and is 4 now"):
        await resume_corpus(stub, out)
    stub.dimensions = 8
    other = tmp_path / "other.jsonl"
    other.write_bytes(corpus.read_bytes())
    with pytest.raises(CorpusError, match="other inputs"):
        await run_corpus(stub, out, other)
    with corpus.open("ab") as file:
        file.write(b'{"text":"more"}\n')
    with pytest.raises(CorpusError, match=r"c\.jsonl has changed.*bytes"):
        await resume_corpus(stub, out)


@pytest.mark.parametrize("hashed", [True, False])
async def test_an_input_with_another_time_is_the_same_if_its_bytes_are(
    hashed: bool, stub: EmbeddingsStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hashed:
        monkeypatch.setattr(inputs, "MAX_HASHED_BYTES", 0)
    corpus, out = tmp_path / "c.txt", tmp_path / "out"
    corpus.write_text(f"{'x' * 99_999}\n" * 30, encoding="utf-8")
    await run_corpus(stub, out, corpus)
    os.utime(corpus, ns=(0, 10**18))
    if hashed:
        assert (await resume_corpus(stub, out)).complete
    else:
        with pytest.raises(CorpusError, match=r"is from 2001-09-09 01:46:40\.000000000 UTC, and was from 2.*touch -d"):
            await resume_corpus(stub, out)
    with corpus.open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"y")
    with pytest.raises(CorpusError, match="as many bytes, but others" if hashed else "no hash of all of it"):
        await resume_corpus(stub, out)
