"""The record that `trillama engine build` writes beside the engine: its source, and the processor it was built for.

A cache folder may move to another machine, or be mounted by several. An engine that uses instructions this processor
lacks would die of SIGILL sooner or later, so it is recognised before it is run.
"""

from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from pydantic import AliasChoices, Field, ValidationError, field_validator

from launcher.host import processor
from proxy.contract.family import Strict


class ComputeBackend(StrEnum):
    """What an engine is built to compute on, beside the CPU. On a Mac every build has Metal."""

    CPU = "cpu"
    CUDA = "cuda"
    VULKAN = "vulkan"
    HIP = "hip"


class Order(Strict):
    """Options, source and processor of a build: the same order need not be built again.

    `architectures` are CUDA's, empty for those of the GPUs that are here; `cmake` are the user's own definitions.
    """

    source: str
    backend: ComputeBackend = Field(ComputeBackend.CPU, validation_alias=AliasChoices("backend", "cuda"))
    stock: bool
    without_images: bool = False
    architectures: str = ""
    cmake: tuple[str, ...] = ()
    instructions: tuple[str, ...]

    @field_validator("backend", mode="before")
    @classmethod
    def _from_flag(cls, given: object) -> object:
        """Records of earlier builds say `cuda: true` or `false`."""
        return (ComputeBackend.CUDA if given else ComputeBackend.CPU) if isinstance(given, bool) else given

    @property
    def command(self) -> str:
        """The command that builds this order."""
        backend = [f"--{self.backend}"] if self.backend is not ComputeBackend.CPU else []
        architectures = [f'--cuda-arch "{self.architectures}"'] if self.architectures else []
        without = [*["--stock"] * self.stock, *["--no-images"] * self.without_images]
        return " ".join(("trillama engine build", *backend, *architectures, *without))


class Record(Strict):
    """A built engine. `left_out` are instructions of its processor that it does not use."""

    order: Order
    processor: str
    left_out: tuple[str, ...] = ()
    note: str

    def missing_instructions(self, here: Iterable[str]) -> list[str]:
        """The instructions that the engine uses and a processor with `here` lacks."""
        return sorted({*self.order.instructions}.difference(self.left_out, here))


def read_record(binary: Path) -> Record | None:
    """The record of that engine, also of the one that a link leads to; None if it has none, or an unreadable one."""
    for path in dict.fromkeys((binary, binary.resolve())):
        with suppress(OSError, ValidationError):
            return Record.model_validate_json(_path(path).read_bytes())
    return None


def write_record(binary: Path, record: Record) -> None:
    """Write the record of that engine."""
    _path(binary).write_text(_text(record), encoding="utf-8")


def install_build(built: Path, final: Path, record: Record) -> None:
    """Put an engine and its record in place atomically. If killed half-way, the engine is left without a record."""
    unfinished = _path(final).with_suffix(".unfinished")
    unfinished.write_text(_text(record), encoding="utf-8")
    _path(final).unlink(missing_ok=True)
    built.replace(final)  # a server that runs the old one keeps its file
    unfinished.replace(_path(final))


def why_foreign(binary: Path) -> str | None:
    """Why that engine cannot run on this processor, with the fix; None if it can, or if it has no record."""
    record, here = read_record(binary), processor.instructions()
    if record is None or not here or not (missing := record.missing_instructions(here)):
        return None
    return (
        f"{binary} was built for another processor ({record.processor}) and needs {', '.join(missing)}, which this one "
        f"({processor.name()}) does not have: run `{record.order.command}` here"
    )


def _text(record: Record) -> str:
    return record.model_dump_json(indent=1)


def _path(binary: Path) -> Path:
    return binary.with_name(f"{binary.name}.json")
