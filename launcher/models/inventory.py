"""The family's files side by side: what is here, what the hub has, what is in use, and what the disk can take."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from launcher.hub.cache import CachedFile, StoppedDownload
from launcher.hub.listing import Offer
from launcher.settings.config import ModelSettings
from launcher.settings.family import Family


class Use(StrEnum):
    IN_USE = "in use"
    UNUSED = "not in use"
    OLD = "old revision"
    HALF = "half"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryRow:
    """One file on this machine, or one that the configuration wants and that is not here (no `path`).

    `quantization` is None for the user's own file and for half a download, which the cache does not name.
    """

    backend: str
    quantization: str | None
    use: Use
    bytes: int
    path: Path | None

    def facts(self) -> dict[str, object]:
        """The row for JSON."""
        return {
            "backend": self.backend,
            "quantization": self.quantization,
            "use": self.use,
            "bytes": self.bytes,
            "path": str(self.path) if self.path else None,
        }


def rows(
    family: Family, settings: ModelSettings, files: Sequence[CachedFile], halves: Sequence[StoppedDownload]
) -> tuple[InventoryRow, ...]:
    """The files of each backend in the family's order: the one it serves first, then the others, then halves."""
    return tuple(row for backend in family.weights.models for row in _of(backend, family, settings, files, halves))


def by_quantization(offers: Iterable[Offer]) -> Mapping[str, Mapping[str, Offer]]:
    """quantisation → backend → offer, the largest first."""
    table: dict[str, dict[str, Offer]] = {}
    for offer in sorted(offers, key=lambda offer: -offer.bytes):
        table.setdefault(offer.quantization, {})[offer.backend] = offer
    return table


def _of(
    backend: str,
    family: Family,
    settings: ModelSettings,
    files: Sequence[CachedFile],
    halves: Sequence[StoppedDownload],
) -> Iterator[InventoryRow]:
    own, wanted = settings.files.get(backend), settings.quantization or family.weights.quantization
    mine = [file for file in files if file.backend == backend]
    served = [file for file in mine if file.current and file.quantization == wanted and not own]
    if own:
        there = own.is_file()
        use, size = (Use.IN_USE, own.stat().st_size) if there else (Use.MISSING, 0)
        yield InventoryRow(backend=backend, quantization=None, use=use, bytes=size, path=own)
    elif not served:
        yield InventoryRow(backend=backend, quantization=wanted, use=Use.MISSING, bytes=0, path=None)
    for file in [*served, *(file for file in mine if file not in served)]:
        use = Use.IN_USE if file in served else Use.UNUSED if file.current else Use.OLD
        yield InventoryRow(backend=backend, quantization=file.quantization, use=use, bytes=file.bytes, path=file.path)
    for half in halves:
        if half.backend == backend:
            yield InventoryRow(backend=backend, quantization=None, use=Use.HALF, bytes=half.bytes, path=half.path)
