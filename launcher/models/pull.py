"""`trillama models pull`: finds what is missing, checks that it is offered and fits the disk, and fetches it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import DamagedFile, ModelError, NotWritten
from launcher.host.disk import amount, free_bytes
from launcher.hub.cache import bytes_present
from launcher.hub.listing import Offer, offered
from launcher.models import header_check, mmproj, sources
from launcher.models.sources import ModelFile, ReportBytes
from launcher.settings.family import FamilyFile
from launcher.settings.folders import hub_cache
from launcher.settings.models import ModelSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PullPlan:
    """The files of a pull. `bytes` still have to be downloaded; 0 if the hub did not give the sizes of models.

    `encoder`: the vision encoder from the hub, if images are on.
    """

    here: tuple[ModelFile, ...]
    missing: tuple[ModelFile, ...]
    own: tuple[ModelFile, ...]
    loras: tuple[ModelFile, ...]
    encoder: ModelFile | None
    bytes: int


def plan_pull(
    family: FamilyFile, settings: ModelSettings, quantization: str | None, backends: Sequence[str]
) -> PullPlan:
    """What a pull has to do. Without `quantization`: the configuration's, in which the user's own files count.

    Asks the hub only if something is missing; if it is unreachable, the download reports that. Blocks. Raises
    ModelError for a quantisation that is not offered, naming those that are; NotWritten if the disk is too small.
    """
    name = family.weights.named(quantization or settings.quantization or family.weights.quantization)
    files = [
        sources.model_file(family, backend, name, local=None if quantization else settings.files.get(backend))
        for backend in family.weights.models
        if backend in backends
    ]
    encoder = mmproj.mmproj_file(family, settings)
    own = tuple(file for file in (*files, encoder) if file and file.local)
    here = tuple(file for file in files if not file.local and _is_complete(file))
    missing = tuple(file for file in files if file not in own and file not in here)
    offers, _ = offered(family, [file.backend for file in missing])
    _check_offered(family, name, missing, offers)
    encoder_missing = encoder is not None and not encoder.local and not _is_complete(encoder)
    needed = _bytes_to_download(family, name, offers)
    needed += mmproj.mmproj_bytes(family, settings) if encoder_missing else 0
    if needed > (free := free_bytes(cache := hub_cache())):
        raise NotWritten(
            f"{len(missing) + encoder_missing} files of {name} need {amount(needed)}, the disk of {cache} has "
            f"{amount(free)} free: make room, choose a smaller quantisation, or set HF_HOME to another disk"
        )
    loras = sources.lora_files(family, settings.model_copy(update={"quantization": name}))
    needed_loras = tuple(lora for lora in loras if lora.backend in backends and not lora.local)
    return PullPlan(
        here=here,
        missing=missing,
        own=own,
        loras=needed_loras,
        encoder=encoder if encoder and not encoder.local else None,
        bytes=needed if offers or not missing else 0,
    )


async def run_pull(family: FamilyFile, planned: PullPlan, report: ReportBytes) -> dict[str, Path]:
    """Fetch what is missing, one file after the other, and check all. Returns the paths, without the user's own files.

    If cancelled, partial downloads stay. Raises ModelError.
    """
    paths = {}
    for file in (*planned.here, *planned.missing):
        thorough = file in planned.here  # a new download is verified anyway
        paths[file.backend] = path = await sources.locate_intact(file, report=report, thorough=thorough)
        header_check.check_model(path, family)
    for lora in planned.loras:
        paths[f"{lora.backend} LoRA"] = path = await sources.locate_intact(lora, report=report)
        header_check.check_lora(path, family)
    if planned.encoder:
        thorough = _is_complete(planned.encoder)
        path = await sources.locate_intact(planned.encoder, report=report, thorough=thorough)
        mmproj.check_mmproj(path, family)
        paths[planned.encoder.backend] = path
    return paths


def _is_complete(file: ModelFile) -> bool:
    """Whether the cache has all of it; a truncated file must still be downloaded."""
    path = sources.find_here(file)
    try:
        return path is not None and bool(sources.check_complete(path))
    except DamagedFile:
        return False


def _check_offered(family: FamilyFile, name: str, missing: Sequence[ModelFile], offers: Sequence[Offer]) -> None:
    for file in missing:
        available = [offer.quantization for offer in offers if offer.backend == file.backend]
        if available and name not in available:
            repo = family.weights.on_hub[file.backend].repo
            raise ModelError(f'{repo} has no "{name}"; there are {", ".join(available)}')
        if not available and name not in family.weights.quantizations:
            known = ", ".join(family.weights.quantizations)
            raise ModelError(f'"{name}": {family.name} is offered as {known}')


def _bytes_to_download(family: FamilyFile, name: str, offers: Sequence[Offer]) -> int:
    places = family.weights.on_hub
    return sum(
        max(0, offer.bytes - bytes_present(places[offer.backend], offer.sha256))
        for offer in offers
        if offer.quantization == name
    )
