"""The options of `trillama corpus`."""

from pathlib import Path
from typing import Annotated

import typer

from launcher.corpus.output.stored import OutputFormat, VectorType
from launcher.corpus.rows.sources import InputFormat

Folder = Annotated[Path, typer.Argument(help="The folder given to `corpus run` as --out.")]

# Of `corpus run`.
GivenInputs = Annotated[list[str], typer.Argument(help="Files or globs in quotes: .jsonl, .csv, .tsv, .parquet, .txt.")]
OutFolder = Annotated[Path, typer.Option("--out", help="The folder for the vectors; it is also the job's record.")]
TextColumn = Annotated[str | None, typer.Option(help="The texts' column [default: text, content, body, passage].")]
IdColumn = Annotated[str | None, typer.Option("--id", help="The ids' column [default: the rows' numbers].")]
KeptColumns = Annotated[str | None, typer.Option(help="More columns to keep, with commas between.")]
FromFormat = Annotated[InputFormat | None, typer.Option("--from", help="The inputs' format [default: by name].")]
ToFormat = Annotated[OutputFormat, typer.Option("--format", help="What to write.")]
NumberType = Annotated[VectorType, typer.Option(help="The type of the vectors' numbers.")]
AskedTask = Annotated[str | None, typer.Option(help="One that the family has [default: the server's].")]
FirstDimensions = Annotated[int | None, typer.Option("--dimensions", min=1, help="Keep only the first N dimensions.")]
AskedModel = Annotated[str | None, typer.Option(help="The model to ask a server for that has several.")]
Truncate = Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long.")]
PartRows = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="Rows of a part [default: 4096, or 16 MiB of float32].")
]
OnlyEstimate = Annotated[bool, typer.Option("--dry-run", help="Only say how many rows, tokens, hours, GiB.")]

# Of every command that computes.
Concurrency = Annotated[
    int, typer.Option(min=1, max=1024, help="Most calls in flight. It adapts to the server; give 2 a node.")
]
Dedupe = Annotated[bool, typer.Option("--dedupe", help="Compute a text that comes again soon only once.")]
Json = Annotated[bool, typer.Option("--json", help="For programs: a JSON object per second.")]

# Of the others.
Retry = Annotated[bool, typer.Option("--retry", help="Compute these rows again.")]
JsonStatus = Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")]
SampledRows = Annotated[int, typer.Option(min=0, help="How many rows to embed again and compare; 0: none.")]
