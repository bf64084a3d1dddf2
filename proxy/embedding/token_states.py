"""The states of a text's tokens, from a backend with `--pooling none` that is checked against the model's own."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from proxy.contract.family import Pooling
from proxy.errors import BackendError
from proxy.models.served_model import ServedModel
from proxy.scheduling.entries import Caller
from proxy.types import Ids, Matrix, Picture

# Least cosine of one model's vectors from two processes, pooled there or here; other models are below.
SAME_COSINE = 0.999


class TokenStates(Protocol):
    """A backend that gives the model's last hidden state of each token, after its final norm, not normalised."""

    @property
    def takes_images(self) -> bool: ...

    async def picture_states(self, picture: Picture, caller: Caller, /) -> Matrix:
        """As `states`, of all tokens of an image's prompt, as the original has it."""

    async def states(self, ids: Ids, caller: Caller, /) -> Matrix:
        """One row per token, float32, (n, width). Raises PoisonedInput, BackendError or a subclass."""


@dataclass(slots=True)
class ModelStates:
    """The token states of a model, from its token-level backend.

    Before its first answer is used, and after each failure, a text's states must make the model's own vector.
    """

    by_token: ServedModel
    model: ServedModel
    _verified: bool = False

    @property
    def takes_images(self) -> bool:
        return self.by_token.takes_images and self.model.takes_images

    async def states(self, ids: Ids, caller: Caller) -> Matrix:
        """See TokenStates. Waits for a backend that starts on demand. BackendError also for states of another model."""

        async def vector() -> Matrix:
            return (await self.model.embed([ids], replace(caller, partial=False))).rows

        return await self._checked(self.by_token.token_states(ids, caller), lambda states: states, vector)

    async def picture_states(self, picture: Picture, caller: Caller) -> Matrix:
        """See TokenStates; as `states`."""

        async def vector() -> Matrix:
            return await self.model.embed_picture(picture, caller)

        def own(states: Matrix) -> Matrix:
            return self.by_token.image_prompt.own_states(states)

        return await self._checked(self.by_token.picture_states(picture, caller), own, vector)

    async def _checked(
        self, computed: Awaitable[Matrix], own: Callable[[Matrix], Matrix], vector: Callable[[], Awaitable[Matrix]]
    ) -> Matrix:
        """The computed states, of which the model's own vector must be the mean of `own`."""
        try:
            states = await computed
            if not self._verified:
                self._compare(own(states), await vector())
                self._verified = True
        except BackendError:
            self._verified = False  # what starts there next may be another model
            raise
        return states

    def _compare(self, states: Matrix, vector: Matrix) -> None:
        (own,) = vector.astype(np.float64)
        made = pooled(states, self.model.rules.pooling)
        if own.shape != made.shape or not own @ made >= SAME_COSINE * np.linalg.norm(own) * np.linalg.norm(made):
            name = self.by_token.backend.name
            raise BackendError(f"backend {name} has another model than its own backend: give both the same file")


def pooled(states: Matrix, pooling: Pooling) -> NDArray[np.float64]:
    """The vector that a text's states make, (n_embd,)."""
    if pooling == "mean":
        return np.asarray(states.mean(axis=0, dtype=np.float64))
    return np.asarray(states[0 if pooling == "cls" else -1], dtype=np.float64)
