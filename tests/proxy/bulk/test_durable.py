"""A file is there completely or not at all."""

from pathlib import Path
from typing import BinaryIO

import pytest

from proxy.bulk.durable import UNFINISHED, write_durably


def test_the_content_is_in_place(tmp_path: Path) -> None:
    write_durably(tmp_path / "a", lambda file: file.write(b"content"))
    assert (tmp_path / "a").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")

    def fail(new: BinaryIO) -> None:
        new.write(b"half")
        assert file.with_name("a" + UNFINISHED).exists()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_durably(file, fail)
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
