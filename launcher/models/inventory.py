"""The table of the family's files: those here, those in use, and those on the hub."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from launcher.hub.cache import MMPROJ, CachedFile, StoppedDownload
from launcher.hub.listing import Offer
from launcher.settings.family import FamilyFile
from launcher.settings.models import ModelSettings


class Use(StrEnum):
    IN_USE = "in use"
    UNUSED = "not in use"
    OLD = "old revision"
    HALF = "half"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryRow:
    """A file on this machine, or one that the configuration needs and that is not here (no `path`).

    `quantization` is None for the user's own file, and for a partial download, for which the cache does not say it;
    empty for a LoRA that goes with every quantisation, and for the vision encoder, whose backend is MMPROJ.
    """

    backend: str
    quantization: str | None
    use: Use
    bytes: int
    path: Path | None
    lora: bool = False

    def facts(self) -> dict[str, object]:
        """The row for JSON."""
        return {
            "backend": self.backend,
            "quantization": self.quantization,
            "use": self.use,
            "bytes": self.bytes,
            "path": str(self.path) if self.path else None,
            "lora": self.lora,
        }


def rows(
    family: FamilyFile, settings: ModelSettings, files: Sequence[CachedFile], stopped: Sequence[StoppedDownload]
) -> tuple[InventoryRow, ...]:
    """The files of each backend, in the family's order: the model served, others, LoRAs, then partial downloads.

    Last the vision encoder, if one is here or images are on.
    """
    of_backends = [row for backend in family.weights.models for row in _of(backend, family, settings, files, stopped)]
    return *of_backends, *_encoders(settings, [file for file in files if file.backend == MMPROJ])


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
    quantization = family.weights.named(settings.quantization or family.weights.quantization)
    cached, source = [file for file in files if file.backend == backend], family.weights.models[backend]
    model = InventoryRow(backend=backend, quantization=quantization, use=Use.MISSING, bytes=0, path=None)
    yield from _of_kind(model, settings.files.get(backend), [file for file in cached if not file.lora])
    if source.lora or source.needs_lora or backend in settings.lora_files:
        lora = replace(model, lora=True)
        yield from _of_kind(lora, settings.lora_files.get(backend), [file for file in cached if file.lora])
    for partial in stopped:
        if partial.backend == backend:
            yield InventoryRow(backend=backend, quantization=None, use=Use.HALF, bytes=partial.bytes, path=partial.path)


def _encoders(settings: ModelSettings, cached: Sequence[CachedFile]) -> Iterator[InventoryRow]:
    missing = InventoryRow(backend=MMPROJ, quantization="", use=Use.MISSING, bytes=0, path=None)
    for row in _of_kind(missing, settings.mmproj, cached):
        if settings.images:
            yield row
        elif row.path and row.path.is_file():
            yield replace(row, use=Use.UNUSED if row.use is Use.IN_USE else row.use)


def _of_kind(missing: InventoryRow, own: Path | None, cached: Sequence[CachedFile]) -> Iterator[InventoryRow]:
    """The rows of a backend's models, or of its LoRAs; `missing` is the row if the one to be served is not here."""
    served = [file for file in cached if file.current and file.quantization in {missing.quantization, ""} and not own]
    if own and own.is_file():
        yield replace(missing, quantization=None, use=Use.IN_USE, bytes=own.stat().st_size, path=own)
    elif own:
        yield replace(missing, quantization=None, path=own)
    elif not served:
        yield missing
    for file in [*served, *(file for file in cached if file not in served)]:
        use = Use.IN_USE if file in served else Use.UNUSED if file.current else Use.OLD
        yield replace(missing, quantization=file.quantization, use=use, bytes=file.bytes, path=file.path)
