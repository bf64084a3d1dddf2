"""A part as a table of pyarrow: id, vector and the kept columns, with the vectors' origin as metadata."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from launcher.corpus.output.stored import FinishedPart, Stored, StoredPart, VectorType
from launcher.corpus.rows.records import CellValue

if TYPE_CHECKING:
    import pyarrow as pa

ID_COLUMN, VECTOR_COLUMN = "id", "vector"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTable:
    """`types` are those of columns that come from parquet; those from other files are texts."""

    id_column: str | None
    types: Mapping[str, "pa.DataType"]
    vector_type: VectorType
    width: int
    metadata: Mapping[str, str]

    def of(self, part: FinishedPart) -> "pa.Table":
        """The table of that part."""
        import pyarrow as pa  # noqa: PLC0415 # an extra

        columns = {
            ID_COLUMN: self._values(part.ids, self.id_column),
            VECTOR_COLUMN: _vectors(part.vectors, list(part.errors)),
            **{name: self._values(values, name) for name, values in part.kept.items()},
        }
        metadata = {f"trillama.{name}": value for name, value in self.metadata.items()}
        return pa.table(columns).replace_schema_metadata(metadata)

    def read(self, table: "pa.Table") -> StoredPart:
        """What is in a table that has at least the ids and the vectors, which may be changed."""
        vectors = cast("pa.FixedSizeListArray[pa.DataType, int]", table.column(VECTOR_COLUMN).combine_chunks())
        flat = vectors.values.to_numpy(zero_copy_only=False)
        if flat.dtype != self.vector_type.numpy:  # integers become floats where a row has no vector
            flat = np.nan_to_num(flat).astype(self.vector_type.numpy)
        own = np.require(flat, requirements="W")  # pyarrow's may not be written to
        return StoredPart(table.column(ID_COLUMN).to_pylist(), own.reshape(len(vectors), self.width))

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
