"""Multi-vectors: gets the state of each token from a backend and projects it, one text after another."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.contract.family import Family
from proxy.embedding.projection import NoProjector, Projection, load_projections
from proxy.embedding.token_states import TokenStates
from proxy.errors import BadVector, InputTooLong, ProxyError
from proxy.faults import Invalid, PoisonedInput, invalid
from proxy.scheduling.entries import Caller
from proxy.types import Ids, Matrix, Picture

MAX_TOKENS = 65536  # of one request: 33 MB of vectors, about 100 MB of JSON


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """The vectors of each input's tokens (n, dimensions), not normalised, by its index; or its error."""

    rows: Mapping[int, Matrix]
    failed: Mapping[int, ProxyError]


@dataclass(frozen=True, slots=True)
class TokenEmbedder:
    """Makes the multi-vectors of one backend."""

    projection: Projection
    source: TokenStates

    @property
    def takes_images(self) -> bool:
        return self.source.takes_images

    async def embed(self, inputs: Mapping[int, Ids], caller: Caller) -> TokenVectors:
        """The vectors of every token. A text's states are freed before the next one's are requested.

        Raises BackendError, PoisonedInput unless the caller is partial.
        """
        rows, failed = dict[int, Matrix](), dict[int, ProxyError]()
        for index, ids in inputs.items():
            try:
                rows[index] = await self._vectors(ids, caller)
            except PoisonedInput as error:
                if not caller.partial:
                    raise PoisonedInput(index) from error
                failed[index] = error
        return TokenVectors(rows, failed)

    async def embed_picture(self, picture: Picture, caller: Caller) -> Matrix:
        """The vectors of every token of an image's prompt. Raises BackendError, PoisonedInput."""
        return await asyncio.to_thread(self.projection.vectors, await self.source.picture_states(picture, caller))

    async def _vectors(self, ids: Ids, caller: Caller) -> Matrix:
        states = await self.source.states(ids, caller)
        if len(states) != len(ids):
            raise BadVector(f"the backend gave {len(states)} token states for {len(ids)} tokens")
        return await asyncio.to_thread(self.projection.vectors, states)


def check_total(tokens: int) -> None:
    """Raises InputTooLong if the inputs of a request have more tokens together than MAX_TOKENS."""
    if tokens > MAX_TOKENS:
        raise InputTooLong(
            f"the inputs have {tokens} tokens together; return_multivector takes at most {MAX_TOKENS} in one "
            "request: send fewer in each",
            param="input",
        )


@dataclass(slots=True)
class MultiVectors:
    """Which multi-vectors can be served. The projector is read when it is first needed, and kept.

    So one that is downloaded while the server runs is used by the next request.
    """

    family: Family
    file: Path | None = None
    sources: Mapping[str, TokenStates] = field(default_factory=dict)
    _projections: Mapping[str, Projection] | None = None

    @property
    def served(self) -> bool:
        """Whether every task has multi-vectors now."""
        try:
            return all(self.of(row.backend) for row in self.family.tasks.values())
        except Invalid:
            return False

    def of(self, backend: str) -> TokenEmbedder:
        """The embedder for the tasks of that backend. Raises Invalid with what is missing and how to fix it."""
        try:
            projection = self._read()[backend]
        except NoProjector as error:
            raise _refusal(str(error)) from error
        if backend not in self.sources:
            raise _refusal(
                "needs the state of each token: set token_level = true under [late_chunking] in the server's "
                f"configuration, or token_backends.{backend} for a proxy on its own"
            )
        return TokenEmbedder(projection, self.sources[backend])

    def _read(self) -> Mapping[str, Projection]:
        if self._projections is None:
            self._projections = load_projections(self.file, self.family)
        return self._projections


def _refusal(message: str) -> Invalid:
    return invalid("return_multivector", message, kind="unsupported", given="true")
