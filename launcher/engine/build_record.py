"""The record that `trillama engine build` writes beside the engine: its source, and the processor it was built for.

A cache folder may move to another machine, or be mounted by several. An engine that uses instructions this processor
lacks would die of SIGILL sooner or later, so it is recognised before it is run.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from launcher.host import processor
from proxy.contract.family import Strict


class Order(Strict):
    """Options, source and processor of a build: the same order need not be built again."""

    source: str
    cuda: bool
    stock: bool
    instructions: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that builds this order."""
        return " ".join(("trillama engine build", *["--cuda"] * self.cuda, *["--stock"] * self.stock))


class Record(Strict):
    """A built engine. `left_out` are instructions of its processor that it does not use."""

    order: Order
    processor: str
    left_out: tuple[str, ...] = ()
    note: str

    def missing_instructions(self, here: Iterable[str]) -> list[str]:
        """The instructions that the engine uses and a processor with `here` lacks."""
        return sorted({*self.order.instructions}.difference(self.left_out, here))


def order(source: str, *, cuda: bool, stock: bool) -> Order:
    """The order for this machine's processor."""
    return Order(source=source, cuda=cuda, stock=stock, instructions=tuple(sorted(processor.instructions())))


def read_record(binary: Path) -> Record | None:
    """The record of that engine; None if it has none, or an unreadable one."""
    with suppress(OSError, ValidationError):
        return Record.model_validate_json(_path(binary).read_bytes())
    return None


def install_build(built: Path, final: Path, record: Record) -> None:
    """Put an engine and its record in place atomically. If killed half-way, the engine is left without a record."""
    unfinished = _path(final).with_suffix(".unfinished")
    unfinished.write_text(record.model_dump_json(indent=1), encoding="utf-8")
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


def _path(binary: Path) -> Path:
    return binary.with_name(f"{binary.name}.json")
