"""What a hub's repository really has: its files of the family, with their sizes."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import httpx2
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

from launcher.download import refusal
from launcher.errors import HubUnreachable, ModelError
from launcher.family import Family, ModelSource
from launcher.store import quantization_in

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One file of the family in a repository."""

    backend: str
    quantization: str
    bytes: int
    sha256: str | None


def offered(family: Family, backends: Iterable[str]) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """What the hub has for those backends, the largest first; and why some are missing, each reason once.

    Blocks, for TIMEOUT_S at most if the hub is out of reach.
    """

    found: list[Offer] = []
    reasons: dict[str, None] = {}
    for backend in backends:
        try:
            found += offers(backend, family.weights.models[backend])
        except HubUnreachable as error:
            reasons[str(error)] = None
            break  # it would be as long in vain for the others
        except ModelError as error:
            reasons[str(error)] = None
    return tuple(found), tuple(reasons)


def offers(backend: str, source: ModelSource) -> tuple[Offer, ...]:
    """The backend's files on the hub, the largest first. Blocks. Raises ModelError with one line that says why not."""
    try:
        info = HfApi().model_info(source.repo, files_metadata=True, timeout=TIMEOUT_S)
    except HFValidationError as error:
        raise ModelError(f'"{source.repo}" is no name of a repository: set repo = "owner/name"') from error
    except HfHubHTTPError as error:
        raise refusal(error)(_refused(error, source.repo)) from error
    except OfflineModeIsEnabled as error:
        raise ModelError("the hub is not asked: HF_HUB_OFFLINE forbids it, unset it to see what there is") from error
    except (httpx2.HTTPError, OSError) as error:
        why = str(error) or type(error).__name__
        raise HubUnreachable(f"{constants.ENDPOINT} cannot be reached ({why}): check the network") from error
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise HubUnreachable(f"{constants.ENDPOINT} does not answer as a hub: check HF_ENDPOINT") from error
    found = (
        Offer(
            backend=backend,
            quantization=quantization,
            bytes=file.size or 0,
            sha256=file.lfs.sha256 if file.lfs else None,
        )
        for file in info.siblings or ()
        if (quantization := quantization_in(source.file, file.rfilename))
    )
    return tuple(sorted(found, key=lambda offer: -offer.bytes))


def _refused(error: HfHubHTTPError, repo: str) -> str:
    status, page = error.response.status_code, f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return (
            f"the hub does not show us {repo} (HTTP {status}): check the name, accept the licence at {page}, and set "
            "HF_TOKEN to a token of an account that may read it"
        )
    return f"the hub answered HTTP {status} for {repo}: try again later"
