"""The folder says which parts are done."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from proxy.bulk.ledger import PartLedger, RowRange, files_of

FIRST, SECOND = RowRange(0, 0, 10), RowRange(0, 10, 15)


@given(st.integers(0, 10**6), st.integers(0, 10**13), st.integers(0, 10**13))
def test_a_name_says_its_rows(source: int, start: int, stop: int) -> None:
    rows = RowRange(source, start, stop)
    assert RowRange.of_name(rows.name) == rows


def test_another_name_is_no_part() -> None:
    assert RowRange.of_name("part-0-1-2") is None
    assert RowRange.of_name("corpus") is None


def test_what_was_committed_is_done_for_the_next_run(tmp_path: Path) -> None:
    ledger = PartLedger(tmp_path / "parts", ".bin")
    ledger.commit(SECOND, lambda file: file.write(b"b"))
    ledger.commit(FIRST, lambda file: file.write(b"a"))
    again = PartLedger(tmp_path / "parts", ".bin")
    assert again.done == {FIRST, SECOND}
    assert again.rows_done() == 15
    assert [path.read_bytes() for _, path in files_of(tmp_path / "parts", ".bin")] == [b"a", b"b"]


def test_what_a_killed_run_left_is_not_done_and_its_owner_removes_it(tmp_path: Path) -> None:
    half = tmp_path / f".{FIRST.name}.bin.tmp"
    half.write_bytes(b"half")
    strange = tmp_path / "notes.bin"
    strange.write_bytes(b"the user's")
    ledger = PartLedger(tmp_path, ".bin")
    assert ledger.done == set()
    assert half.exists()
    ledger.remove_unfinished()
    assert not half.exists()
    assert strange.exists()
