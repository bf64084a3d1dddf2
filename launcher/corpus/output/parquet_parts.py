"""Vectors as parquet: a file per part with one row group, vectors as fixed-size lists, their origin as metadata."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from launcher.corpus.output.stored import FinishedPart, OutputFormat, Stored, StoredPart, VectorType, part_ledger
from launcher.corpus.rows.records import CellValue
from launcher.corpus.rows.with_pyarrow import pyarrow
from launcher.errors import CorpusError
from proxy.bulk.ledger import PartLedger, RowRange

if TYPE_CHECKING:
    import pyarrow as pa

_ID, _VECTOR = "id", "vector"


@dataclass(slots=True, kw_only=True)
class ParquetParts:
    """`types` are those of columns that come from parquet; those from other files are texts."""

    folder: Path
    id_column: str | None
    types: Mapping[str, "pa.DataType"]
    vector_type: VectorType
    width: int
    metadata: Mapping[str, str]
    ledger: PartLedger = field(init=False)

    def __post_init__(self) -> None:
        pyarrow("the output is parquet")
        self.ledger = part_ledger(self.folder, OutputFormat.PARQUET)

    def write(self, part: FinishedPart) -> None:
        table = self._table(part)
        self.ledger.commit(part.rows, lambda file: _write(table, file))

    def read(self, rows: RowRange) -> StoredPart:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 # an extra

        path = self.ledger.path(rows)
        try:
            with parquet.ParquetFile(path, pre_buffer=False) as file:
                table = file.read([_ID, _VECTOR], use_threads=False)
        except (ArrowException, OSError) as error:
            raise CorpusError(f"{path} is damaged: {error}") from error
        vectors = cast("pa.FixedSizeListArray[pa.DataType, int]", table.column(_VECTOR).combine_chunks())
        flat = vectors.values.to_numpy(zero_copy_only=False)
        if flat.dtype != self.vector_type.numpy:  # integers become floats where a row has no vector
            flat = np.nan_to_num(flat).astype(self.vector_type.numpy)
        return StoredPart(table.column(_ID).to_pylist(), flat.reshape(len(vectors), self.width))

    def finish(self) -> None:
        """Each part is complete."""

    def _table(self, part: FinishedPart) -> "pa.Table":
        import pyarrow as pa  # noqa: PLC0415 # an extra

        columns = {
            _ID: self._values(part.ids, self.id_column),
            _VECTOR: _vectors(part.vectors, list(part.errors)),
            **{name: self._values(values, name) for name, values in part.kept.items()},
        }
        metadata = {f"trillama.{name}": value for name, value in self.metadata.items()}
        return pa.table(columns).replace_schema_metadata(metadata)

    def _values(self, values: Sequence[CellValue], column: str | None) -> "pa.Array[pa.Scalar[pa.DataType]]":
        import pyarrow as pa  # noqa: PLC0415 # an extra

        if column is None:
            return pa.array(values, pa.int64())
        if column in self.types:
            return pa.array(values, self.types[column])
        return pa.array(
            [None if one is None else one if isinstance(one, str) else str(one) for one in values], pa.string()
        )


def _vectors(vectors: Stored, missing: Sequence[int]) -> "pa.Array[pa.Scalar[pa.DataType]]":
    """A fixed-size list per row; null in the place of each missing one."""
    import pyarrow as pa  # noqa: PLC0415 # an extra

    mask = np.zeros(len(vectors), dtype=bool)
    mask[missing] = True
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(mask) if missing else None)


def _write(table: "pa.Table", file: BinaryIO) -> None:
    """One row group. Vectors are noise, so neither dictionaries nor compression nor statistics would gain anything."""
    from pyarrow import parquet  # noqa: PLC0415 # an extra

    others = [name for name in table.column_names if name != _VECTOR]
    parquet.write_table(
        table,
        file,
        row_group_size=max(1, len(table)),
        use_dictionary=False,
        write_statistics=others,
        compression=dict.fromkeys(others, "zstd"),
    )
