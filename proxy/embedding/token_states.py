"""The states of a text's tokens, from a backend with `--pooling none` that is checked against the model's own."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from proxy.contract.family import Pooling
from proxy.errors import BackendError
from proxy.models.served_model import ServedModel
from proxy.scheduling.entries import Caller
from proxy.types import Ids, Matrix

# Least cosine of one model's vectors from two processes, pooled there or here; other models are below.
SAME_COSINE = 0.999


class TokenStates(Protocol):
    """A backend that gives the model's last hidden state of each token, after its final norm, not normalised."""

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

    async def states(self, ids: Ids, caller: Caller) -> Matrix:
        """See TokenStates. Waits for a backend that starts on demand. BackendError also for states of another model."""
        try:
            states = await self.by_token.token_states(ids, caller)
            if not self._verified:
                await self._verify(ids, states, caller)
                self._verified = True
        except BackendError:
            self._verified = False  # what starts there next may be another model
            raise
        return states

    async def _verify(self, ids: Ids, states: Matrix, caller: Caller) -> None:
        (own,) = (await self.model.embed([ids], replace(caller, partial=False))).rows.astype(np.float64)
        made = pooled(states, self.model.rules.pooling)
        if own.shape != made.shape or not own @ made >= SAME_COSINE * np.linalg.norm(own) * np.linalg.norm(made):
            name = self.by_token.backend.name
            raise BackendError(f"backend {name} has another model than its own backend: give both the same file")


def pooled(states: Matrix, pooling: Pooling) -> NDArray[np.float64]:
    """The vector that a text's states make, (n_embd,)."""
    if pooling == "mean":
        return np.asarray(states.mean(axis=0, dtype=np.float64))
    return np.asarray(states[0 if pooling == "cls" else -1], dtype=np.float64)
