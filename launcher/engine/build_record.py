"""What `trillama engine build` writes beside the engine: from what it was built, and for which processor.

A cache folder may be moved to another machine, or mounted by several. An engine built for a processor that has more
instructions than the one here would end by SIGILL, some time; so it is recognised before it is run.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from launcher.host import processor
from proxy.contract.family import Strict


class Order(Strict):
    """What was asked for, of which source and on which processor: the same order need not be built again."""

    source: str
    cuda: bool
    stock: bool
    instructions: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that builds it."""
        return " ".join(("trillama engine build", *["--cuda"] * self.cuda, *["--stock"] * self.stock))


class Record(Strict):
    """An engine as it was built. `left_out` are instructions of its processor that it does not use."""

    order: Order
    processor: str
    left_out: tuple[str, ...] = ()
    note: str

    def missing(self, here: Iterable[str]) -> list[str]:
        """The instructions that it uses and a processor with those of `here` does not have."""
        return sorted({*self.order.instructions}.difference(self.left_out, here))


def order(source: str, *, cuda: bool, stock: bool) -> Order:
    """The order for this processor."""
    return Order(source=source, cuda=cuda, stock=stock, instructions=tuple(sorted(processor.instructions())))


def read(binary: Path) -> Record | None:
    """The record of that engine; None for one that has none, or none that we can read."""
    with suppress(OSError, ValidationError):
        return Record.model_validate_json(_path(binary).read_bytes())
    return None


def install(built: Path, final: Path, record: Record) -> None:
    """Move an engine to its place, at once, with its record. Killed half-way it leaves one without a record."""
    unfinished = _path(final).with_suffix(".unfinished")
    unfinished.write_text(record.model_dump_json(indent=1), encoding="utf-8")
    _path(final).unlink(missing_ok=True)
    built.replace(final)  # a server that runs the old one keeps it
    unfinished.replace(_path(final))


def why_foreign(binary: Path) -> str | None:
    """Why that engine cannot run on this processor, and what to do; None if it can, or if nothing is known of it."""
    record, here = read(binary), processor.instructions()
    if record is None or not here or not (missing := record.missing(here)):
        return None
    return (
        f"{binary} was built for another processor ({record.processor}) and needs {', '.join(missing)}, which this one "
        f"({processor.name()}) does not have: run `{record.order.command}` here"
    )


def _path(binary: Path) -> Path:
    return binary.with_name(f"{binary.name}.json")
