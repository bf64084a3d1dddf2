"""The writer of a job's plan: its format, with what the plan says of the vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.corpus.output.jsonl_parts import JsonlParts
from launcher.corpus.output.lance_parts import LanceParts, check_lance
from launcher.corpus.output.npy_file import NpyFile
from launcher.corpus.output.parquet_parts import ParquetParts
from launcher.corpus.output.part_table import PartTable
from launcher.corpus.output.stored import OutputFormat, PartWriter
from launcher.corpus.plan import CorpusPlan
from launcher.corpus.rows.parquet import plain_types
from launcher.corpus.rows.sources import InputFormat
from launcher.corpus.rows.with_pyarrow import pyarrow

if TYPE_CHECKING:
    import pyarrow as pa


def check_packages(format_: OutputFormat) -> None:
    """Raises ArgumentError with the command that installs what this format needs; before a folder is made."""
    if format_ is OutputFormat.PARQUET:
        pyarrow("the output is parquet")
    elif format_ is OutputFormat.LANCE:
        check_lance()


def writer_of(folder: Path, plan: CorpusPlan) -> PartWriter:
    """The writer of the plan's format."""
    options, width = plan.options, plan.width
    match options.format:
        case OutputFormat.NPY:
            return NpyFile(folder=folder, first_rows=plan.first_rows, vector_type=options.dtype, width=width)
        case OutputFormat.JSONL:
            return JsonlParts(folder=folder, vector_type=options.dtype, width=width)
        case OutputFormat.PARQUET:
            return ParquetParts(folder=folder, table=_table(plan))
        case OutputFormat.LANCE:
            return LanceParts(folder=folder, table=_table(plan))


def _table(plan: CorpusPlan) -> PartTable:
    return PartTable(
        id_column=plan.inputs[0].columns.id,
        types=_types(plan),
        vector_type=plan.options.dtype,
        width=plan.width,
        metadata=_metadata(plan),
    )


def _types(plan: CorpusPlan) -> "Mapping[str, pa.DataType]":
    """The types of the columns, if all inputs are parquet."""
    if any(one.format is not InputFormat.PARQUET for one in plan.inputs):
        return {}
    used = plan.inputs[0].columns
    return plain_types(plan.inputs[0].path, [name for name in (used.id, *used.keep) if name is not None])


def _metadata(plan: CorpusPlan) -> dict[str, str]:
    space = plan.space
    return {
        "vector_space": space.id,
        "model": space.model,
        "task": space.task,
        "prefix": space.prefix,
        "model_digest": space.digest,
        "quantization": space.quantization,
        "dimensions": str(space.dimensions),
        "dtype": plan.options.dtype,
        "normalized": "true",
    }
