"""The header of a model file, with what is wrong with the file as an error for the user."""

from pathlib import Path

from launcher.errors import DamagedFile, ModelError
from proxy.contract import gguf

LONGEST_QUOTE = 80  # characters of a value in a message


def model_header(path: Path) -> gguf.Header:
    """The header of the file. Raises DamagedFile if it is not a GGUF file, ModelError if we cannot read it."""
    try:
        return gguf.read_header(path)
    except gguf.UnknownVersion as error:
        raise ModelError(str(error)) from error
    except gguf.BadGGUF as error:
        raise DamagedFile(f"{error}; download it again") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error


def brief(value: gguf.Value | None) -> str:
    """A value of a header for a message: short, whatever a stranger's file says."""
    text = str(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"
