"""`trillama models pull`: decide what is missing, see that it is offered and fits, and fetch it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import DamagedFile, ModelError, NotWritten
from launcher.host.disk import amount, free_bytes
from launcher.hub import cache as store
from launcher.hub.cache_entry import find_cached
from launcher.hub.listing import Offer, offered
from launcher.models import sources as models
from launcher.models.sources import ModelFile, Report
from launcher.settings.config import ModelSettings
from launcher.settings.family import Family
from launcher.settings.folders import hub_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class PullPlan:
    """Which files are to be had. `bytes` are those still to come, 0 where the hub did not say."""

    here: tuple[ModelFile, ...]
    missing: tuple[ModelFile, ...]
    own: tuple[ModelFile, ...]
    bytes: int


def plan_pull(family: Family, settings: ModelSettings, quantization: str | None, backends: Sequence[str]) -> PullPlan:
    """What a pull has to do. Without `quantization` it is the configuration's, and the user's own files count.

    Asks the hub if something is missing; a hub out of reach is left to the download to report. Blocks. Raises
    ModelError for a quantisation that is not offered, naming those that are, and for a disk that cannot take all.
    """
    name = family.weights.named(quantization or settings.quantization or family.weights.quantization)
    files = [
        ModelFile(
            backend=backend,
            repo=source.repo,
            filename=source.file.format(quantization=name),
            local=None if quantization else settings.files.get(backend),
        )
        for backend, source in family.weights.models.items()
        if backend in backends
    ]
    own = tuple(file for file in files if file.local)
    here = tuple(file for file in files if not file.local and _is_here(file))
    missing = tuple(file for file in files if file not in own and file not in here)
    offers, _ = offered(family, [file.backend for file in missing])
    _check_offered(family, name, missing, offers)
    coming = _bytes_to_come(family, name, offers)
    if coming > (free := free_bytes(cache := hub_cache())):
        raise NotWritten(
            f"{len(missing)} files of {name} need {amount(coming)}, the disk of {cache} has {amount(free)} free: "
            "make room, take a smaller quantisation, or set HF_HOME to another disk"
        )
    return PullPlan(here=here, missing=missing, own=own, bytes=coming)


async def run(family: Family, planned: PullPlan, report: Report) -> dict[str, Path]:
    """Fetch what is missing, one file after the other, and check each. The path of every file that is not the user's.

    Cancelled, what has arrived stays. Raises ModelError.
    """
    paths = {}
    for file in (*planned.here, *planned.missing):
        thorough = file in planned.here  # what comes now is verified as it comes
        paths[file.backend] = path = await models.locate_intact(file, report=report, thorough=thorough)
        models.check(path, architecture=family.weights.architecture, dimensions=family.dimensions)
    return paths


def _is_here(file: ModelFile) -> bool:
    """Whether it is in the cache with all that it names: a cut-off one is still to come."""
    path = find_cached(file.repo, file.filename)
    try:
        return path is not None and bool(models.check_complete(path))
    except DamagedFile:
        return False


def _check_offered(family: Family, name: str, missing: Sequence[ModelFile], offers: Sequence[Offer]) -> None:
    for file in missing:
        there = [offer.quantization for offer in offers if offer.backend == file.backend]
        if there and name not in there:
            raise ModelError(f'{file.repo} has no "{name}"; there are {", ".join(there)}')
        if not there and name not in family.weights.quantizations:
            offered_as = ", ".join(family.weights.quantizations)
            raise ModelError(f'"{name}": {family.name} is offered as {offered_as}')


def _bytes_to_come(family: Family, name: str, offers: Sequence[Offer]) -> int:
    sources = family.weights.models
    return sum(
        max(0, offer.bytes - store.bytes_present(sources[offer.backend], offer.sha256))
        for offer in offers
        if offer.quantization == name
    )
