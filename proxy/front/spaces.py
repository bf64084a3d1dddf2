"""Keeps all nodes of a Front in one vector space for each backend. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

UNKNOWN_SPACE = "unknown"  # of a backend that was not started yet


class Space(NamedTuple):
    """The id of a vector space, and the quantisation of the model that makes its vectors."""

    id: str
    quantization: str = ""

    @property
    def shown(self) -> str:
        return f"{self.id} ({self.quantization})" if self.quantization else self.id


def conflict(spaces: Mapping[str, Space], pinned: Mapping[str, Space]) -> str | None:
    """Why a node with these spaces must not be used; None if it may."""
    for backend, space in spaces.items():
        wanted = pinned.get(backend)
        if wanted and UNKNOWN_SPACE not in {space.id, wanted.id} and space.id != wanted.id:
            return f"other vector space: {backend} {space.shown}, the cluster serves {wanted.shown}"
    return None


def repinned(
    pinned: Mapping[str, Space],
    configured: Mapping[str, str],
    listed: Iterable[Mapping[str, Space]],
    newest: Mapping[str, Space],
) -> dict[str, Space]:
    """The spaces to keep to, now that a node is ready with the `newest`.

    Configured ones never change. Others stay while any of the `listed` nodes has them, ready or not; the first node
    that is ready sets what is missing.
    """
    known = [spaces for spaces in listed if spaces]
    kept = {
        backend: space
        for backend, space in pinned.items()
        if backend in configured or any(spaces.get(backend, space).id == space.id for spaces in known)
    }
    named = {
        backend: kept.get(backend, Space(space, _quantization(space, newest.get(backend))))
        for backend, space in configured.items()
    }
    return {**{backend: space for backend, space in newest.items() if space.id != UNKNOWN_SPACE}, **kept, **named}


def _quantization(space: str, of: Space | None) -> str:
    return of.quantization if of and of.id == space else ""
