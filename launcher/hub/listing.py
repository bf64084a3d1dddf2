"""Lists the family's files in a hub's repository, with their sizes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from huggingface_hub import HfApi, constants
from huggingface_hub.hf_api import RepoSibling

from launcher.errors import ConfigError, HubUnreachable, ModelError
from launcher.hub.cache import quantization_in
from launcher.hub.client import SHA256, HubRequest, check_client, translate_errors
from launcher.settings.family import FamilyFile, HubFile

_TIMEOUT_S = 10.0
LARGEST = 2**50  # bytes; a larger size is not believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A file of the family in a repository."""

    backend: str
    quantization: str
    bytes: int
    sha256: str | None


def offered(family: FamilyFile, backends: Iterable[str]) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """The hub's files for those backends, largest first; and why some are missing, each reason once.

    Blocks, for at most _TIMEOUT_S if the hub is unreachable.
    """
    if constants.HF_HUB_OFFLINE:
        return (), ("HF_HUB_OFFLINE is set",)
    found: list[Offer] = []
    reasons: dict[str, None] = {}
    places = family.weights.on_hub
    only = family.weights.quantizations[0]  # where the pattern is a name, there is one
    for backend in [one for one in backends if one in places]:
        try:
            found += [replace(one, quantization=one.quantization or only) for one in offers(backend, places[backend])]
        except (HubUnreachable, ConfigError) as error:
            reasons[str(error)] = None
            break  # it would be the same for the others
        except ModelError as error:
            reasons[str(error)] = None
    return tuple(found), tuple(reasons)


def offers(backend: str, source: HubFile) -> tuple[Offer, ...]:
    """The backend's files on the hub, largest first. Blocks. Raises ModelError or ConfigError with the reason.

    Without a quantisation where `source.file` is a name, not a pattern.
    """
    with translate_errors(
        HubRequest(repo=source.repo, object="the files", verb="list", otherwise="or add --local, which asks no hub")
    ):
        check_client()
        info = HfApi().model_info(source.repo, files_metadata=True, timeout=_TIMEOUT_S)
        found = tuple(
            Offer(backend=backend, quantization=quantization, bytes=_size(file), sha256=_sha256(file))
            for file in info.siblings or ()
            if (quantization := quantization_in(source.file, file.rfilename)) is not None
        )
    return tuple(sorted(found, key=lambda offer: -offer.bytes))


def _size(file: RepoSibling) -> int:
    """The file's size. Raises ValueError for anything that is no plausible size: a hub may send anything."""
    if type(file.size) is not int or not 0 <= file.size <= LARGEST:
        raise ValueError(f"a file of {file.size!r:.40} bytes")
    return file.size


def _sha256(file: RepoSibling) -> str | None:
    given = file.lfs.sha256 if file.lfs else None
    return given if isinstance(given, str) and SHA256.fullmatch(given) else None
