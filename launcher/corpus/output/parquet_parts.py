"""Vectors as parquet: a file per part with one row group."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from launcher.corpus.output.part_table import ID_COLUMN, VECTOR_COLUMN, PartTable
from launcher.corpus.output.stored import FinishedPart, OutputFormat, StoredPart, part_ledger
from launcher.corpus.rows.with_pyarrow import pyarrow
from launcher.errors import CorpusError
from proxy.bulk.ledger import PartLedger, RowRange

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True, kw_only=True)
class ParquetParts:
    folder: Path
    table: PartTable
    ledger: PartLedger = field(init=False)

    def __post_init__(self) -> None:
        pyarrow("the output is parquet")
        self.ledger = part_ledger(self.folder, OutputFormat.PARQUET)

    def write(self, part: FinishedPart) -> None:
        table = self.table.of(part)
        self.ledger.commit(part.rows, lambda file: _write(table, file))

    def read(self, rows: RowRange) -> StoredPart:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 # an extra

        path = self.ledger.path(rows)
        try:
            with parquet.ParquetFile(path, pre_buffer=False) as file:
                return self.table.read(file.read([ID_COLUMN, VECTOR_COLUMN], use_threads=False))
        except (ArrowException, OSError) as error:
            raise CorpusError(f"{path} is damaged: {error}") from error

    def finish(self) -> None:
        """Each part is complete."""


def _write(table: "pa.Table", file: BinaryIO) -> None:
    """One row group. Vectors are noise, so neither dictionaries nor compression nor statistics would gain anything."""
    from pyarrow import parquet  # noqa: PLC0415 # an extra

    others = [name for name in table.column_names if name != VECTOR_COLUMN]
    parquet.write_table(
        table,
        file,
        row_group_size=max(1, len(table)),
        use_dictionary=False,
        write_statistics=others,
        compression=dict.fromkeys(others, "zstd"),
    )
