"""Where the states of single tokens come from, and a request's multi-vectors made of them, one text after the other."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from proxy.config import Family
from proxy.embedding import Ids, Matrix
from proxy.errors import BadVector, InputTooLong, Invalid, invalid
from proxy.multivector import PULL, NoProjector, Projection, load

MOST_TOKENS = 65536  # of one request: 33 MB of vectors, about 100 MB of JSON


class TokenStates(Protocol):
    """A backend that gives the model's last hidden state of each token, after its final norm, not normalised."""

    async def states(self, ids: Ids) -> Matrix:
        """One row per token, float32, (n, width). Raises BackendError or a subclass."""


@dataclass(frozen=True, slots=True)
class Tokenwise:
    """What multi-vectors of one backend are made with."""

    projection: Projection
    source: TokenStates

    async def embed(self, inputs: Sequence[Ids], *, normalized: bool) -> tuple[Matrix, tuple[int, ...]]:
        """The vectors of all tokens below each other, and how many each input has.

        A text's states are let go before the next one's are asked for. Raises InputTooLong, BackendError.
        """
        if (tokens := sum(map(len, inputs))) > MOST_TOKENS:
            raise InputTooLong(
                f"the inputs have {tokens} tokens together; return_multivector takes at most {MOST_TOKENS} in one "
                "request: send fewer texts in each",
                param="input",
            )
        made = [await self._vectors(ids, normalized=normalized) for ids in inputs]
        return np.concatenate(made), tuple(map(len, made))

    async def _vectors(self, ids: Ids, *, normalized: bool) -> Matrix:
        states = await self.source.states(ids)
        if len(states) != len(ids):
            raise BadVector(f"the backend gave {len(states)} token states for {len(ids)} tokens")
        return await asyncio.to_thread(self.projection.vectors, states, normalized=normalized)


@dataclass(slots=True)
class MultiVectors:
    """Whether multi-vectors can be had, and of what; the projector is read when it is first asked for, and kept.

    So one that is fetched while the server runs is there for the next request.
    """

    family: Family
    file: Path | None = None
    sources: Mapping[str, TokenStates] = field(default_factory=dict)
    _projections: Mapping[str, Projection] | None = None

    @property
    def served(self) -> bool:
        """Whether every task has them now."""
        try:
            return all(self.of(row.backend) for row in self.family.tasks.values())
        except Invalid:
            return False

    def of(self, backend: str) -> Tokenwise:
        """What makes them for the tasks of that backend. Raises Invalid with what is missing and who can mend it."""
        try:
            projection = self._read()[backend]
        except NoProjector as error:
            raise _refusal(str(error)) from error
        if backend not in self.sources:
            raise _refusal(f"needs a token-level backend: set token_backends.{backend} in the proxy's configuration")
        return Tokenwise(projection, self.sources[backend])

    def _read(self) -> Mapping[str, Projection]:
        if self._projections is None:
            if self.file is None:
                raise NoProjector(f"is not set up here: {PULL}, and set multivector_file in the proxy's configuration")
            self._projections = load(self.file, self.family)
        return self._projections


def _refusal(message: str) -> Invalid:
    return invalid("return_multivector", message, kind="unsupported", given="true")
