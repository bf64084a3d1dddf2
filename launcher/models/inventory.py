"""The table of the family's files: those here, those in use, and those on the hub."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from launcher.hub.cache import CachedFile, StoppedDownload
from launcher.hub.listing import Offer
from launcher.settings.config import ModelSettings
from launcher.settings.family import FamilyFile


class Use(StrEnum):
    IN_USE = "in use"
    UNUSED = "not in use"
    OLD = "old revision"
    HALF = "half"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryRow:
    """A file on this machine, or one that the configuration needs and that is not here (no `path`).

    `quantization` is None for the user's own file, and for a partial download, for which the cache does not say it.
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
    family: FamilyFile, settings: ModelSettings, files: Sequence[CachedFile], stopped: Sequence[StoppedDownload]
) -> tuple[InventoryRow, ...]:
    """The files of each backend, in the family's order: the served one, then others, then partial downloads."""
    return tuple(row for backend in family.weights.models for row in _of(backend, family, settings, files, stopped))


def by_quantization(offers: Iterable[Offer]) -> Mapping[str, Mapping[str, Offer]]:
    """quantisation → backend → offer, largest first."""
    table: dict[str, dict[str, Offer]] = {}
    for offer in sorted(offers, key=lambda offer: -offer.bytes):
        table.setdefault(offer.quantization, {})[offer.backend] = offer
    return table


def _of(
    backend: str,
    family: FamilyFile,
    settings: ModelSettings,
    files: Sequence[CachedFile],
    stopped: Sequence[StoppedDownload],
) -> Iterator[InventoryRow]:
    own, quantization = settings.files.get(backend), settings.quantization or family.weights.quantization
    cached = [file for file in files if file.backend == backend]
    served = [file for file in cached if file.current and file.quantization == quantization and not own]
    if own:
        use, size = (Use.IN_USE, own.stat().st_size) if own.is_file() else (Use.MISSING, 0)
        yield InventoryRow(backend=backend, quantization=None, use=use, bytes=size, path=own)
    elif not served:
        yield InventoryRow(backend=backend, quantization=quantization, use=Use.MISSING, bytes=0, path=None)
    for file in [*served, *(file for file in cached if file not in served)]:
        use = Use.IN_USE if file in served else Use.UNUSED if file.current else Use.OLD
        yield InventoryRow(backend=backend, quantization=file.quantization, use=use, bytes=file.bytes, path=file.path)
    for partial in stopped:
        if partial.backend == backend:
            yield InventoryRow(backend=backend, quantization=None, use=Use.HALF, bytes=partial.bytes, path=partial.path)
