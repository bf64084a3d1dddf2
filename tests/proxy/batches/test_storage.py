"""Jobs and files on disk: bounded, written in slices, deleted when they are old; what a kill left is no result."""

import itertools
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from proxy.batches.jobs import PARTS, made_of
from proxy.batches.records import BatchApi, BatchState, BatchStatus, ResultKind, new_spec
from proxy.batches.results import LineResult, write_part
from proxy.batches.storage import bytes_kept
from proxy.batches.uploads import FileRecord, UploadedFiles
from proxy.bulk.ledger import RowRange
from proxy.errors import BodyTooLarge, NotFound, StorageFull
from tests.proxy.batches.job_folder import LIMITS, Engine, Kept, found_in, opened


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    kept = opened(tmp_path, total_bytes=3 * 2**20)
    async with UploadedFiles(kept.jobs.storage).receiving() as upload:
        for _ in range(3):
            upload.write(b"x" * 300_000)
        with pytest.raises(BodyTooLarge, match="larger than 1000000 bytes"):
            upload.write(b"x" * 300_000)
    assert not list(kept.jobs.storage.files.iterdir())  # what was not kept is gone
    kept.jobs.storage.take(2 * 2**20)
    with pytest.raises(StorageFull, match="max_batch_bytes is 3145728"):
        kept.jobs.storage.take(2**20)
    assert bytes_kept(tmp_path) == 0
    kept.jobs.storage.take(2**20)  # counted again


def test_an_input_that_does_not_fit_is_not_made_to_its_end(tmp_path: Path) -> None:
    kept, lines = opened(tmp_path, total_bytes=10_000), ({"custom_id": f"{n}" * 1000} for n in itertools.count())
    with pytest.raises(StorageFull):
        kept.jobs.create(new_spec("me", BatchApi.JINA), made_of(lines, kept.jobs.storage))
    assert not list(kept.jobs.storage.jobs.iterdir())


def test_a_line_of_many_vectors_is_written_in_slices(kept: Kept) -> None:
    vectors = np.random.default_rng(0).standard_normal((512, 2048), dtype=np.float32)
    line, rows = LineResult(ResultKind.OUTPUT, {"data": [{"embedding": one} for one in vectors]}), RowRange(0, 0, 1)
    job = kept.begin(1)
    ledger = job.ledger()
    tracemalloc.start()
    try:
        assert write_part(ledger, kept.jobs.storage, rows, [line]) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (found,) = found_in(job)
    assert np.array_equal(np.array([one["embedding"] for one in found["data"]], dtype=np.float32), vectors)  # type: ignore[attr-defined]
    assert peak < job.results(ResultKind.OUTPUT)[0].stat().st_size / 5


async def test_what_is_too_old_is_deleted(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    files, old = UploadedFiles(kept.jobs.storage), time.time() - 2 * LIMITS.kept_s
    names = []
    for created_at, expires_at in ((old, None), (time.time(), old), (time.time(), None)):
        async with files.receiving() as upload:
            record = FileRecord(
                id=upload.id,
                client="me",
                filename="f",
                purpose="batch",
                bytes=0,
                created_at=created_at,
                expires_at=expires_at,
            )
            await upload.keep(record)
            names.append(upload.id)
    ended, fresh = kept.begin(1), kept.begin(1)
    ended.save(BatchState(status=BatchStatus.COMPLETED, ended_at=old))
    async with kept.owned(Engine()):
        await kept.ended(fresh)
    with pytest.raises(NotFound):
        kept.jobs.get("me", ended.spec.id)
    assert [one.id for one in files.of("me")] == names[2:]


def test_what_a_crash_left_of_a_job_is_deleted(kept: Kept) -> None:
    made = [kept.begin(1).folder for _ in range(3)]
    old, new = [folder.rename(folder.with_name(f".{folder.name}")) for folder in made[:2]]
    for folder in (old, made[2]):
        os.utime(folder, (0, 0))
    kept.jobs.delete_old()
    assert set(kept.jobs.storage.jobs.iterdir()) == {new, made[2]}


def test_what_a_killed_run_left_of_a_part_is_no_result(kept: Kept) -> None:
    job = kept.begin(1)
    parts = job.folder / PARTS
    parts.mkdir()
    (parts / f"{RowRange(0, 0, 1).name}{ResultKind.OUTPUT.suffix}").write_bytes(b"{}\n")
    assert job.results(ResultKind.OUTPUT) == []
