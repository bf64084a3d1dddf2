"""pyarrow, which only those need that read or write parquet, or read zstd."""

from typing import TYPE_CHECKING

from launcher.errors import ArgumentError

if TYPE_CHECKING:
    import types


def pyarrow(why: str) -> "types.ModuleType":
    """The package. Raises ArgumentError with the command that installs it."""
    try:
        import pyarrow  # noqa: PLC0415 # an extra
    except ImportError as error:
        raise ArgumentError(f"{why}, and that needs pyarrow: pip install 'trillama[corpus]'") from error
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # its own keeps what it had at most (measured: 40 MiB)
    return pyarrow
