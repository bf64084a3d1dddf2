"""What a job is, in `corpus.json`: its inputs, its options and the vector space, none of which may change."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from launcher.corpus.output.stored import OutputFormat, VectorType
from launcher.corpus.rows.parquet import parquet_file
from launcher.corpus.rows.records import UsedColumns
from launcher.corpus.rows.sources import InputFormat, reader_of
from launcher.errors import ArgumentError, CorpusError, JobStopped
from proxy.bulk.durable import write_durably

PLAN = "corpus.json"
PART_ROWS = 4096
PART_VECTORS = 16 * 2**20  # bytes of float32: a part is in memory several times while it is written
Stop = Callable[[], bool]  # whether the user wants it to end
GivenFile = tuple[Path, InputFormat, UsedColumns]
_SAMPLE = 2**20  # bytes at the start and at the end that are hashed
_MAX_PLAN_BYTES = 64 * 2**20


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputFile(_Frozen):
    """One file, as it was when the job began. `digest` is of its first and last MiB."""

    path: Path
    format: InputFormat
    columns: UsedColumns
    bytes: int
    mtime_ns: int
    digest: str
    rows: int


class JobOptions(_Frozen):
    """What decides about the output. `dimensions`, `task` and `model` as in a request; None: the server's own.

    `part_rows`: at most so many rows are a part; None: PART_ROWS, or fewer whose vectors have PART_VECTORS bytes.
    """

    task: str | None = None
    dimensions: int | None = None
    model: str | None = None
    truncate: bool = False
    format: OutputFormat = OutputFormat.PARQUET
    dtype: VectorType = VectorType.FLOAT32
    part_rows: int | None = None


class SpaceFound(_Frozen):
    """What the server says about its vectors. `id` is empty if it does not say: then only the rest is compared."""

    id: str
    model: str
    task: str
    prefix: str
    digest: str
    quantization: str
    dimensions: int


class CorpusPlan(_Frozen):
    """`url` is what was given, if any: the next command asks there too."""

    version: int = 1
    created: datetime
    url: str | None
    options: JobOptions
    space: SpaceFound
    inputs: tuple[InputFile, ...]

    @property
    def rows(self) -> int:
        return self.first_rows[-1]

    @property
    def first_rows(self) -> tuple[int, ...]:
        """For each input, the number of its first row in the whole corpus; last, the number of all rows."""
        return tuple(accumulate((one.rows for one in self.inputs), initial=0))

    @property
    def part_rows(self) -> int:
        """How many rows a part has at most."""
        return self.options.part_rows or max(1, min(PART_ROWS, PART_VECTORS // (4 * self.space.dimensions)))

    @property
    def width(self) -> int:
        """How many numbers a stored vector has."""
        return self.options.dtype.width(self.space.dimensions)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenJob:
    """What `trillama corpus run` was given."""

    folder: Path
    files: Sequence[GivenFile]
    options: JobOptions
    url: str | None

    def plan(self, space: SpaceFound, stop: Stop) -> CorpusPlan:
        """The plan of the job in the folder, if it is this one; else a new one, written.

        For a new one the rows are counted: each file is read once. Raises CorpusError, OSError; JobStopped.
        """
        if (self.folder / PLAN).exists():
            plan = read_plan(self.folder)
            check_same(plan, self.files, self.options)
            return resumed(plan, space, stop)
        inputs = tuple(counted(fingerprint(*file), stop) for file in self.files)
        plan = CorpusPlan(created=datetime.now(UTC), url=self.url, options=self.options, space=space, inputs=inputs)
        write_plan(self.folder, plan)
        return plan


def resumed(plan: CorpusPlan, space: SpaceFound, _: Stop) -> CorpusPlan:
    """The plan, if neither its inputs nor the server's vectors have changed. Raises CorpusError."""
    check_unchanged(plan)
    check_space(plan, space)
    return plan


def read_plan(folder: Path) -> CorpusPlan:
    """The plan of the job in that folder. Raises ArgumentError if there is none, CorpusError if it is damaged."""
    path = folder / PLAN
    try:
        if path.stat().st_size > _MAX_PLAN_BYTES:
            raise CorpusError(f"{path} is too large to be a plan")
        return CorpusPlan.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ArgumentError(f"{folder} has no {PLAN}: no corpus was embedded into it") from error
    except ValidationError as error:
        raise CorpusError(
            f"{path} is damaged, or of another version of trillama: {error.errors()[0]['msg']}"
        ) from error


def write_plan(folder: Path, plan: CorpusPlan) -> None:
    """Write it, durably."""
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / PLAN, lambda file: file.write(plan.model_dump_json(indent=1).encode() + b"\n"))


def fingerprint(path: Path, format_: InputFormat, columns: UsedColumns) -> InputFile:
    """The file as it is now; its rows are not counted. Raises OSError."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        stat = path.stat()
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, stat.st_size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return InputFile(
        path=path,
        format=format_,
        columns=columns,
        bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        digest=digest.hexdigest(),
        rows=0,
    )


def counted(one: InputFile, stop: Stop) -> InputFile:
    """With the number of its rows. Raises CorpusError, OSError; JobStopped."""
    if one.format is InputFormat.PARQUET:
        with parquet_file(one.path) as file:
            rows = file.metadata.num_rows
    else:
        rows = 0
        for _ in reader_of(one.path, one.format, one.columns).records():
            rows += 1
            if stop():
                raise JobStopped("stopped while the rows were counted: nothing is done yet")
    return one.model_copy(update={"rows": rows})


def check_unchanged(plan: CorpusPlan) -> None:
    """Raises CorpusError that names an input which is not what it was."""
    for old in plan.inputs:
        try:
            now = fingerprint(old.path, old.format, old.columns)
        except OSError as error:
            raise CorpusError(f"{old.path} cannot be read any more: {error.strerror}") from error
        if changed := list(_differences(old, now.model_copy(update={"rows": old.rows}))):
            raise CorpusError(
                f"{old.path} has changed since the job began ({changed[0]}): start a new job in another --out"
            )


def check_same(plan: CorpusPlan, files: Sequence[GivenFile], options: JobOptions) -> None:
    """Raises CorpusError that names what differs from the job that is in the folder already."""
    if [one.path for one in plan.inputs] != [path for path, *_ in files]:
        raise CorpusError("the job in --out has other inputs: give another --out, or `trillama corpus resume` it")
    for old, (_, format_, columns) in zip(plan.inputs, files, strict=True):
        if (old.format, old.columns) != (format_, columns):
            raise CorpusError(f"the job in --out uses {old.path} with {old.format}, {old.columns}: give another --out")
    if changed := list(_differences(plan.options, options)):
        raise CorpusError(f"the job in --out has another {changed[0]}: give another --out, or the same options")


def check_space(plan: CorpusPlan, found: SpaceFound) -> None:
    """Raises CorpusError if the server would make other vectors than those that are there."""
    if changed := list(_differences(plan.space, found)):
        raise CorpusError(
            f"the server's vectors are not those of this job ({changed[0]}): serve that model again, or start a new "
            "job in another --out"
        )


def _differences(old: _Frozen, new: _Frozen) -> Iterator[str]:
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{name}: was {before}, is {after}"
