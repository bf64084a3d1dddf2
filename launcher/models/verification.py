"""`trillama models verify`: reads every file again and compares it with the hub's SHA-256 and with the family."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ModelError
from launcher.hub import cache
from launcher.hub.cache import MMPROJ, CachedFile
from launcher.models import header_check, mmproj, sources
from launcher.settings.family import FamilyFile
from launcher.settings.models import ModelSettings

Check = Callable[[Path, FamilyFile], object]  # raises ModelError


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What was found of a file: `line` is for the user, with what fixes it if it is not `right`."""

    line: str
    right: bool = True


def check_files(family: FamilyFile, settings: ModelSettings, arguments: str) -> Iterator[CheckedFile]:
    """Every file that is here, one after the other. Blocks. `arguments` are added to the commands that fix one."""
    damaged = cache.describe_damage(family)
    yield from (CheckedFile(f"DAMAGED  {sentence}", right=False) for sentence in damaged)
    cached, own = sources.files_here(family), tuple(_own(settings))
    if not (damaged or cached or own):
        yield CheckedFile(f"no file of {family.name} is here: `trillama models pull` downloads them")
    quantization = settings.quantization or family.weights.quantization
    for file in cached:
        yield _checked(_cached(file), family, _fix(file, quantization, arguments))
    for one in own:
        yield _checked(one, family, "copy the file again")


@dataclass(frozen=True, slots=True)
class _File:
    """A file to be verified: `sha256` is the hub's, if it is from there."""

    name: str
    path: Path
    sha256: str | None
    check: Check


def _cached(file: CachedFile) -> _File:
    kind = ("LoRA " if file.lora else "") + file.quantization
    check: Check = header_check.check_lora if file.lora else header_check.check_model
    check = mmproj.check_mmproj if file.backend == MMPROJ else check
    return _File(f"{file.backend} {kind}".rstrip(), file.path, file.sha256, check)


def _own(settings: ModelSettings) -> Iterator[_File]:
    for backend, path in settings.files.items():
        yield _File(f"{backend} (your own)", path, None, header_check.check_model)
    for backend, path in settings.lora_files.items():
        yield _File(f"{backend} LoRA (your own)", path, None, header_check.check_lora)
    if settings.mmproj:
        yield _File(f"{MMPROJ} (your own)", settings.mmproj, None, mmproj.check_mmproj)


def _fix(file: CachedFile, quantization: str, arguments: str) -> str:
    """The command that gets the file again."""
    if file.backend == MMPROJ:  # a pull verifies what is here, and fetches it again
        return f"trillama models pull --images{arguments}"
    which = f"{file.quantization or quantization} --backend {file.backend}{arguments}"
    return f"trillama models remove {which} --yes && trillama models pull {which}"


def _checked(file: _File, family: FamilyFile, fix: str) -> CheckedFile:
    try:
        found = cache.sha256_of(file.path)
        if file.sha256 not in (found, None):
            line = f"DAMAGED  {file.name}  {file.path}: SHA-256 {found}, not {file.sha256}; fix it with: {fix}"
            return CheckedFile(line, right=False)
        file.check(file.path, family)
    except ModelError as error:
        return CheckedFile(f"WRONG    {file.name}  {error}; fix it with: {fix}", right=False)
    return CheckedFile(f"{'ok' if file.sha256 else 'readable':<8} {file.name}  sha256 {found}  {file.path}")
