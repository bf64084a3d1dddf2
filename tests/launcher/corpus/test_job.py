"""Jobs from their first row to the last, with a server that does as it is told."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from launcher.corpus.job import owned
from launcher.corpus.output.stored import OutputFormat, VectorType
from launcher.corpus.plan import JobOptions
from launcher.corpus.rows.records import UsedColumns
from launcher.errors import ArgumentError, CorpusError, DiskError, LauncherError, NotRunning, SpaceChanged, StartError
from proxy.bulk.ledger import RowRange
from tests.support.requests.corpus import (
    SOME,
    every_output,
    resume_corpus,
    run_corpus,
    vectors_by_id,
    verified,
)
from tests.support.servers.embeddings_stub import EmbeddingsStub, refused, vector_of

IDS = UsedColumns(id="doc", keep=("year",))
TEN = JobOptions(part_rows=10)


@pytest.mark.parametrize(("format_", "type_"), every_output())
async def test_every_row_has_its_vector_in_every_output(
    format_: OutputFormat, type_: VectorType, stub: EmbeddingsStub, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stub.bad = lambda text: text == "text 13"
    state = await run_corpus(
        stub, out, corpus, options=TEN.model_copy(update={"format": format_, "dtype": type_}), columns=IDS
    )
    assert (state.rows, state.rows_done, state.error_rows, state.complete) == (25, 25, 1, True)
    found = vectors_by_id(out)
    assert list(found) == [f"d{row}" for row in range(25)]
    for row, vector in enumerate(found.values()):
        if row == 13:
            assert vector is None
            continue
        assert vector is not None
        right = vector_of(f"text {row}", 8)
        if type_ is VectorType.UBINARY:
            assert (vector == np.where(right > 0, 1, -1)).all()
        else:
            assert vector @ right / np.linalg.norm(vector) > 0.999
    assert (await verified(stub, out)).faults == []


async def test_files_that_others_read(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    await run_corpus(stub, tmp_path / "p", corpus, columns=IDS)
    table = parquet.read_table(tmp_path / "p" / "vectors")
    assert table.column_names == ["id", "vector", "year"]
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[8]"
    assert table.schema.metadata[b"trillama.vector_space"] == b"space-1"
    assert table.column("year").to_pylist()[:2] == ["2000", "2001"]
    await run_corpus(stub, tmp_path / "n", corpus, options=TEN.model_copy(update={"format": OutputFormat.NPY}))
    vectors = np.load(tmp_path / "n" / "vectors.npy", mmap_mode="r")
    assert vectors.shape == (25, 8)
    assert np.array_equal(vectors[24], vector_of("text 24", 8))
    assert len((tmp_path / "n" / "ids.jsonl").read_bytes().splitlines()) == 25


async def test_a_lance_dataset_has_parquets_rows_also_after_errors_were_retried(
    stub: EmbeddingsStub, corpus: Path, tmp_path: Path
) -> None:
    lance, parquet = pytest.importorskip("lance"), pytest.importorskip("pyarrow.parquet")
    stub.bad = lambda text: text in {"text 3", "text 17"}
    await run_corpus(stub, tmp_path / "p", corpus, columns=IDS)
    await run_corpus(
        stub, tmp_path / "l", corpus, columns=IDS, options=TEN.model_copy(update={"format": OutputFormat.LANCE})
    )
    for again in range(2):
        table = parquet.read_table(tmp_path / "p" / "vectors")
        dataset = lance.dataset(tmp_path / "l" / "vectors.lance")
        assert dataset.to_table().equals(table)
        assert dataset.schema.metadata == table.schema.metadata
        assert table.column("vector").null_count == (0 if again else 2)
        assert len(list((tmp_path / "l" / "vectors.lance" / "data").iterdir())) == 3
        stub.bad = lambda _: False
        for out in ("p", "l"):
            await resume_corpus(stub, tmp_path / out, retry=True)


async def test_a_parquet_corpus_keeps_the_types_of_its_columns(stub: EmbeddingsStub, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {"n": pa.array([7, 8], pa.int32()), "text": ["a", "b"], "x": pa.array([0.5, None], pa.float32())}
    parquet.write_table(pa.table(rows), tmp_path / "c.parquet")
    await run_corpus(stub, tmp_path / "out", tmp_path / "c.parquet", columns=UsedColumns(id="n", keep=("x",)))
    table = parquet.read_table(tmp_path / "out" / "vectors")
    assert [str(table.schema.field(name).type) for name in ("id", "x")] == ["int32", "float"]
    assert table.column("x").to_pylist() == [0.5, None]


async def test_a_stopped_job_is_resumed_where_it_was(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    stop, out = asyncio.Event(), tmp_path / "out"

    def stop_at_second(texts: Sequence[str]) -> web.Response | None:
        if "text 10" in texts:
            stop.set()
        return None

    stub.fault = stop_at_second
    options = JobOptions(part_rows=1)
    state = await run_corpus(stub, out, corpus, options=options, stop=stop)
    assert 11 <= state.rows_done < 25  # what was in work was completed
    assert not state.complete
    resumed = await resume_corpus(stub, out)
    assert resumed.complete
    assert stub.asked == {**{str(row["text"]): 1 for row in SOME}, "trillama corpus": 2}
    assert list(vectors_by_id(out)) == list(range(25))


async def test_a_killed_job_leaves_nothing_half_written(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await run_corpus(stub, out, corpus)
    first = min((out / "vectors").iterdir())
    os.truncate(first, 10)
    first.rename(first.with_name(f".{first.name}.tmp"))  # as if it had been killed while it wrote
    assert (await resume_corpus(stub, out)).complete
    assert len(list((out / "vectors").iterdir())) == 3
    assert list(vectors_by_id(out)) == list(range(25))


async def test_a_server_in_trouble_costs_no_row(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    statuses = iter([429, 503, 502, 504, 503, 429, 502, 500])

    def fault(texts: Sequence[str]) -> web.Response | None:
        status = None if "trillama corpus" in texts else next(statuses, None)
        return None if status is None else refused(status, **{"Retry-After": "0"} if status in (429, 503) else {})

    stub.fault = fault
    state = await run_corpus(stub, tmp_path / "out", corpus)
    assert (state.rows_done, state.error_rows) == (25, 0)
    assert max(stub.asked.values()) <= 2


async def test_error_rows_can_be_tried_again(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stub.bad = lambda text: text in {"text 3", "text 17"}
    assert (await run_corpus(stub, out, corpus)).error_rows == 2
    stub.bad = lambda text: text == "text 17"
    stub.asked.clear()
    assert (await resume_corpus(stub, out, retry=True)).error_rows == 1
    assert stub.asked == {"text 3": 1, "trillama corpus": 1}
    stub.bad = lambda _: False
    state = await resume_corpus(stub, out, retry=True)
    assert (state.error_rows, state.complete) == (0, True)
    assert (await verified(stub, out, sample=25)).compared == 25


async def test_another_vector_space_in_the_middle_ends_the_run(
    stub: EmbeddingsStub, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def change(texts: Sequence[str]) -> web.Response | None:
        if "text 20" in texts:
            stub.space = "space-2"
        return None

    stub.fault = change
    with pytest.raises(SpaceChanged, match=r"now space-2, this job's is space-1") as raised:
        await run_corpus(stub, out, corpus)
    assert raised.value.exit_code == 75
    with pytest.raises(CorpusError, match="space-2"):
        await resume_corpus(stub, out)
    stub.space, stub.fault = "space-1", lambda _: None
    assert (await resume_corpus(stub, out)).complete


async def test_equal_texts_are_computed_once(stub: EmbeddingsStub, tmp_path: Path) -> None:
    corpus = tmp_path / "c.txt"
    corpus.write_text("same\nsame\nother\n" * 10, encoding="utf-8")
    await run_corpus(stub, tmp_path / "out", corpus)
    assert stub.asked["same"] == 3  # once a part
    stub.asked.clear()
    options = JobOptions(part_rows=10)
    assert (await run_corpus(stub, tmp_path / "once", corpus, options=options, dedupe=True)).complete
    assert stub.asked["same"] <= 3  # parts in work at the same time do not know of each other
    assert len(vectors_by_id(tmp_path / "once")) == 30


async def test_an_empty_corpus_and_one_without_texts_are_done(stub: EmbeddingsStub, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b"\n\n")
    state = await run_corpus(stub, tmp_path / "out", tmp_path / "empty.txt", tmp_path / "blank.txt")
    assert (state.rows, state.error_rows, state.complete) == (2, 2, True)


async def test_a_full_disk_ends_it_and_keeps_what_is_done(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    full = out / "vectors" / f".{RowRange(0, 10, 20).name}.parquet.tmp"

    def fill(texts: Sequence[str]) -> web.Response | None:
        if "text 10" in texts:
            full.symlink_to("/dev/full")
        return None

    stub.fault = fill
    with pytest.raises(DiskError, match=r"No space left.*corpus resume"):
        await run_corpus(stub, out, corpus)
    stub.fault = lambda _: None
    assert (await resume_corpus(stub, out)).complete


async def test_one_command_works_in_a_folder(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    with owned(tmp_path / "out"), pytest.raises(StartError, match="another"):
        await run_corpus(stub, tmp_path / "out", corpus)


async def test_a_server_that_is_none_is_said_at_once(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    url, stub.url = stub.url, "http://127.0.0.1:9"
    with pytest.raises(NotRunning):
        await run_corpus(stub, tmp_path / "out", corpus)
    assert list(tmp_path.iterdir()) == [corpus]  # and nothing is left of it
    stub.url = url + "/nothing"
    with pytest.raises(ArgumentError, match="refused"):
        await run_corpus(stub, tmp_path / "out", corpus)
    stub.url, stub.fault = url, lambda _: refused(401)
    with pytest.raises(LauncherError, match="it is a 401"):
        await run_corpus(stub, tmp_path / "out", corpus)


async def test_verify_finds_what_is_wrong(stub: EmbeddingsStub, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await run_corpus(stub, out, corpus, options=TEN.model_copy(update={"format": OutputFormat.NPY}))
    vectors = np.load(out / "vectors.npy", mmap_mode="r+")
    vectors[12] = np.nan
    vectors.flush()
    assert ["row 12" in fault for fault in (await verified(stub, out)).faults] == [True]
    vectors[12] = vectors[11]
    vectors.flush()
    faults = (await verified(stub, out, sample=25)).faults
    assert len(faults) == 1
    assert "row 12: cosine" in faults[0]
    min((out / "ids").iterdir()).unlink()
    assert "rows 0 to 9 are in no part" in (await verified(stub, out)).faults[0]
