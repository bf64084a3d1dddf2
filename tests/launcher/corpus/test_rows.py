"""What is read of the files of a corpus."""

import gzip
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.corpus.rows.lines import JsonLines, TextLines
from launcher.corpus.rows.records import MAX_PART_BYTES, MAX_RECORD_BYTES, CorpusRow, Cutting, RawRow, UsedColumns
from launcher.corpus.rows.sources import InputFormat, chosen_columns, format_of, given_files, reader_of
from launcher.errors import ArgumentError, CorpusError
from proxy.bulk.ledger import RowRange
from tests.support.requests.corpus import CORPORA, SOME, jsonl


def rows_of(path: Path, columns: UsedColumns | None = None) -> list[CorpusRow]:
    format_ = format_of(path, None)
    chosen = chosen_columns(path, format_, columns or UsedColumns())
    return [record.decode(row) for row, record in enumerate(reader_of(path, format_, chosen).records())]


@pytest.mark.parametrize("name", CORPORA)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(CORPORA[name](SOME))
    columns = UsedColumns() if name == "c.txt" else UsedColumns(id="doc", keep=("year",))
    rows = rows_of(file, columns)
    assert [row.text for row in rows] == [row["text"] for row in SOME]
    if name != "c.txt":
        assert [row.id for row in rows] == [row["doc"] for row in SOME]
        assert [str(row.kept["year"]) for row in rows] == [str(row["year"]) for row in SOME]


def test_rows_that_cannot_be_used_are_errors_in_their_places(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_bytes(b'{"text":"a"}\n{"text":3}\n\n{"text":" "}\n[1]\nnot json\n{"other":1}\n{"text":"b"}')
    rows = rows_of(file)
    assert [row.error and row.error.code for row in rows] == [
        *(None, "no_text", "no_text", "not_json", "not_json", "no_text", None)
    ]
    assert [row.text for row in rows if row.text] == ["a", "b"]


def test_lines_of_text_keep_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "c.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\n\xff\nfour")
    rows = rows_of(file)
    assert [row.text for row in rows] == ["one", None, None, "four"]
    assert [row.id for row in rows] == [0, 1, 2, 3]
    assert [row.error and row.error.code for row in rows] == [None, "no_text", "not_utf8", None]


def test_a_line_too_long_is_an_error_and_never_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "c.txt"
    with file.open("wb") as target:
        target.write(b"a\n")
        for _ in range(MAX_RECORD_BYTES // 2**20 + 2):
            target.write(b"x" * 2**20)
        target.write(b"\nb\n")
    rows = rows_of(file)
    assert [row.text for row in rows] == ["a", None, "b"]
    assert rows[1].error
    assert rows[1].error.code == "too_long"


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.jsonl.zst"])
def test_a_damaged_archive_is_no_short_corpus(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(CORPORA[name](SOME)[:-20])
    with pytest.raises(CorpusError, match="damaged or incomplete"):
        list(JsonLines(file, UsedColumns(text="text")).records())


def test_archives_may_have_several_members(tmp_path: Path) -> None:
    file = tmp_path / "c.txt.gz"
    file.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert [row.text for row in rows_of(file)] == ["one", "two"]


def test_a_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes("text\nschön\n".encode("latin-1"))
    with pytest.raises(CorpusError, match="not UTF-8"):
        rows_of(file)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'id,text\n1,a\n2,b\n3,"open\n4,d\n5,e\n', 4),
        (b'x,text\n"a', 2),
        (b'id,text\n1,"two\nlines"\n2,"open\n3,"d"\n', 4),
    ],
)
def test_an_unclosed_quote_in_a_csv_is_named_and_swallows_no_row(content: bytes, line: int, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"c\.csv, line {line}: a .*quote"):
        rows_of(file)


SWALLOWED = {
    "by a later row": b'id,text\n1,"open\n2,fine\n3,ends with 5"\n4,last\n',
    "at once": b'id,text\r\n1,"open\r\n2,a ""word"""\r\n4,last\r\n',
    "with gaps": b'id,text\n1,"open\n20,fine\n31,good\n44,well\n57,closed"\n60,last\n',
    "without numbers": b'a,text,b\nx,"open,1\ny,fine,2\nz,good,3\nw,well,4\nv,closed",5\nlast,last,6\n',
}
MULTILINE = {
    "a letter": b'id,text\n1,"Dear Sir,\nhello, you,\n2024 was good"\n4,last\n',
    "a price": b'id,text\n4,"It costs\n1,000 euros"\n5,last\n',
    "a number": b'id,text\n1,"n\n' + b"9" * 5000 + b',m"\n2,last\n',
    "a table": b'id,text\n1,"n,m\nx,y\nz,w"\n4,last\n',
    "text first": b'text,id\n"1\n2\n3",1\nlast,4\n',
}


@pytest.mark.parametrize("content", SWALLOWED.values(), ids=SWALLOWED)
def test_a_quote_that_a_later_row_closes_is_an_error_row(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes(content)
    rows = rows_of(file)
    assert [row.error and row.error.code for row in rows] == ["unclosed_quote", None]
    assert rows[-1].text == "last"


@pytest.mark.parametrize("content", MULTILINE.values(), ids=MULTILINE)
def test_a_text_of_several_lines_is_a_text(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes(content)
    assert [row.error for row in rows_of(file)] == [None, None]


@pytest.mark.parametrize("wrong", [UsedColumns(id="idd"), UsedColumns(keep=("year", "yeer"))])
def test_a_column_that_no_row_of_a_jsonl_has_is_refused_whatever_it_is_for(wrong: UsedColumns, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_bytes(b'{"text":"a","id":1}\n' * 200 + b'{"text":"b","id":2,"year":3}\n')
    assert chosen_columns(file, InputFormat.JSONL, UsedColumns(id="id", keep=("year",))).keep == ("year",)
    with pytest.raises(ArgumentError, match=r"has no column '(idd|yeer)'; it has 'text', 'id', 'year'"):
        chosen_columns(file, InputFormat.JSONL, wrong)


def test_a_csv_line_with_surplus_fields_is_an_error_row(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes(b"id,text\n1,a,extra\n2,b,\n3,c\n")
    rows = rows_of(file, UsedColumns(id="id"))
    assert [row.text for row in rows] == [None, "b", "c"]
    assert rows[0].id == "1"
    assert rows[0].error
    assert "3 fields, the header 2" in rows[0].error.message


def test_columns_are_guessed_or_named_in_the_refusal(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes(b"nr,passage\n1,hello\n")
    assert [row.text for row in rows_of(file)] == ["hello"]
    file.write_bytes(b"nr,words\n1,hello\n")
    with pytest.raises(ArgumentError, match="'nr', 'words'"):
        rows_of(file)
    with pytest.raises(ArgumentError, match="no column 'id'"):
        rows_of(file, UsedColumns(text="words", id="id"))


def test_a_text_column_that_no_row_of_a_jsonl_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_bytes(b"not json\n" + jsonl(SOME))
    with pytest.raises(ArgumentError, match=r"no column 'nope'; it has 'doc', 'text', 'year'"):
        rows_of(file, UsedColumns(text="nope"))
    file.write_bytes(jsonl(SOME) + b'{"nope":"late"}\n')
    assert rows_of(file, UsedColumns(text="nope"))[-1].text == "late"
    file.write_bytes(b"")
    assert rows_of(file, UsedColumns(text="nope")) == []


def test_files_are_found_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_bytes(jsonl(SOME))
    files = given_files([f"{tmp_path}/*.jsonl"], None, UsedColumns(), tmp_path / "out")
    assert [path.name for path, *_ in files] == ["a.jsonl", "b.jsonl"]
    with pytest.raises(ArgumentError, match="no such file"):
        given_files([f"{tmp_path}/*.csv"], None, UsedColumns(), tmp_path / "out")
    with pytest.raises(ArgumentError, match="twice"):
        given_files([f"{tmp_path}/*.jsonl", f"{tmp_path}/a.jsonl"], None, UsedColumns(), tmp_path / "out")
    with pytest.raises(ArgumentError, match="--from"):
        format_of(Path("texts"), None)
    assert format_of(Path("texts"), InputFormat.TXT) is InputFormat.TXT


def test_without_its_extra_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("c.parquet", "c.jsonl.zst"):
        with pytest.raises(ArgumentError, match=re.escape("pip install 'trillama[corpus]'")):
            rows_of(Path(name))


class Sizes:
    """A reader of rows of these sizes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes

    def records(self) -> Iterator[RawRow]:
        return (RawRow(size, lambda number: CorpusRow(number, f"text {number}")) for size in self._sizes)


@given(
    st.lists(st.sampled_from([1, 100, MAX_PART_BYTES // 3, MAX_PART_BYTES + 1]), max_size=40),
    st.integers(1, 7),
    st.sets(st.integers(0, 20)),
)
def test_parts_are_cut_the_same_way_whatever_is_done(sizes: list[int], rows: int, done: set[int]) -> None:
    cutting = Cutting(source=2, first_number=1000, rows=rows)
    every = [part for part, _ in cutting.parts(Sizes(sizes), lambda _: False)]
    assert [row for part in every for row in range(part.start, part.stop)] == list(range(len(sizes)))
    assert all(part.rows <= rows for part in every)
    assert all(sum(sizes[part.start : part.stop]) <= MAX_PART_BYTES or part.rows == 1 for part in every)
    finished: set[RowRange] = {part for number, part in enumerate(every) if number in done}
    left = dict(cutting.parts(Sizes(sizes), finished.__contains__))
    assert set(left) == set(every) - finished
    for part, read in left.items():
        assert [row.id for row in read] == list(range(1000 + part.start, 1000 + part.stop))


def test_text_lines_are_read_lazily(tmp_path: Path) -> None:
    file = tmp_path / "c.txt"
    file.write_bytes(b"a\nb\n")
    records = TextLines(file).records()
    assert next(records).decode(7) == CorpusRow(7, "a")
