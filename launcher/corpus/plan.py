"""What a job is, in `corpus.json`: its inputs, its options and the vector space, none of which may change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from shlex import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from launcher.corpus.output.stored import OutputFormat, VectorType
from launcher.corpus.rows.inputs import InputFile, Stop, check_unchanged, counted, fingerprint
from launcher.corpus.rows.records import UsedColumns
from launcher.corpus.rows.sources import InputFormat
from launcher.errors import ArgumentError, CorpusError
from proxy.bulk.durable import write_durably

PLAN = "corpus.json"
PART_ROWS = 4096
PART_VECTORS = 16 * 2**20  # bytes of float32: a part is in memory several times while it is written
GivenFile = tuple[Path, InputFormat, UsedColumns]
_MAX_PLAN_BYTES = 64 * 2**20
_SPACE_WORDS = {"id": "vector space", "digest": "model file's digest", "dimensions": "number of dimensions"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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


class GivenServer(_Frozen):
    """The options that say which server embeds: the next command of a job asks the same one, unless it has its own."""

    url: str | None = None
    config: Path | None = None
    demo: bool = False
    tiny: bool = False


class CorpusPlan(GivenServer):
    """A job, as it was begun."""

    version: int = 1
    created: datetime
    options: JobOptions
    space: SpaceFound
    inputs: tuple[InputFile, ...]

    def server(self, given: GivenServer) -> GivenServer:
        """The server that a command with these options asks: what they leave open is as the job was begun."""
        if given.url:
            return given
        chosen = given if given.config or given.demo else self
        return GivenServer(url=self.url, config=chosen.config, demo=chosen.demo, tiny=chosen.tiny)

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
    server: GivenServer

    def plan(self, space: SpaceFound, stop: Stop) -> CorpusPlan:
        """The plan of the job in the folder, if it is this one; else a new one, written.

        For a new one the rows are counted: each file is read once. Raises CorpusError, OSError; JobStopped.
        """
        if (self.folder / PLAN).exists():
            plan = read_plan(self.folder)
            check_same(plan, self.files, self.options)
            return resumed(plan, space, stop)
        inputs = tuple(counted(fingerprint(*file), stop) for file in self.files)
        begun = datetime.now(UTC)
        given = self.server.model_dump()
        plan = CorpusPlan(created=begun, options=self.options, space=space, inputs=inputs, **given)
        write_plan(self.folder, plan)
        return plan


def resumed(plan: CorpusPlan, space: SpaceFound, _: Stop) -> CorpusPlan:
    """The plan, if neither its inputs nor the server's vectors have changed. Raises CorpusError."""
    check_unchanged(plan.inputs)
    check_space(plan, space)
    return plan


def corpus_command(name: str, folder: Path) -> str:
    """A command for the job in that folder, as a message shows it; it asks the server that the job was begun with."""
    return f"`trillama corpus {name} {quote(str(folder))}`"


def read_plan(folder: Path) -> CorpusPlan:
    """The plan of the job in that folder. Raises ArgumentError if there is none, CorpusError if it is damaged."""
    path = folder / PLAN
    try:
        if path.stat().st_size > _MAX_PLAN_BYTES:
            raise CorpusError(f"{path} is too large to be a plan")
        return CorpusPlan.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArgumentError(f"{folder} has no {PLAN}: no corpus was embedded into it") from error
    except ValidationError as error:
        raise CorpusError(
            f"{path} is damaged, or of another version of trillama: {error.errors()[0]['msg']}"
        ) from error


def write_plan(folder: Path, plan: CorpusPlan) -> None:
    """Write it, durably."""
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / PLAN, lambda file: file.write(plan.model_dump_json(indent=1).encode() + b"\n"))


def check_same(plan: CorpusPlan, files: Sequence[GivenFile], options: JobOptions) -> None:
    """Raises CorpusError that names what differs from the job that is in the folder already."""
    if [one.path for one in plan.inputs] != [path for path, *_ in files]:
        raise CorpusError("the job in --out has other inputs: give another --out, or `trillama corpus resume` it")
    for old, (_, format_, columns) in zip(plan.inputs, files, strict=True):
        _check_options(_input_options(old.format, old.columns), _input_options(format_, columns))
    _check_options(plan.options.model_dump(), options.model_dump())


def check_space(plan: CorpusPlan, found: SpaceFound) -> None:
    """Raises CorpusError if the server would make other vectors than those that are there."""
    old, new = plan.space.model_dump(), found.model_dump()
    if changed := next((name for name in old if old[name] != new[name]), None):
        raise CorpusError(
            f"the server's vectors are not those of this job, as its {_SPACE_WORDS.get(changed, changed)} was "
            f"{_said(old[changed])} when the job began, and is {_said(new[changed])} now: serve that model again, or "
            "start a new job in another --out"
        )


def _input_options(format_: InputFormat, columns: UsedColumns) -> dict[str, object]:
    return {"from": format_, "text": columns.text, "id": columns.id, "keep": ",".join(columns.keep)}


def _check_options(old: Mapping[str, object], new: Mapping[str, object]) -> None:
    if changed := next((name for name in old if old[name] != new[name]), None):
        raise CorpusError(
            f"the job in --out was begun {_option(changed, old[changed])}, and this is "
            f"{_option(changed, new[changed])}: give another --out, or the same options"
        )


def _option(name: str, value: object) -> str:
    """An option as it is typed."""
    flag = f"--{name.replace('_', '-')}"
    if value in (None, "", False):
        return f"without {flag}"
    return f"with {flag}" if value is True else f"with {flag} {value}"


def _said(value: object) -> str:
    return "unknown" if value in (None, "") else str(value)
