"""The projection of token states to multi-vectors: a few dimensions for each token. Pure, but for reading the file.

As the original does it (`get_multi_vector_embeddings` and `_process_batches` of modeling_jina_embeddings_v4.py): a
linear layer with bias, merged with the task's LoRA, on the last hidden state of every token that the model got, those
of the prefix too; padding, of which we have none, is left out. There `truncate_dim` is for single vectors only.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from proxy.contract.family import Family
from proxy.errors import BadVector
from proxy.types import Matrix, Vector


class NoProjector(Exception):
    """There is no usable projector; the message says what to do."""


PULL = "run `trillama models pull --multivector` on the server"


@dataclass(frozen=True, slots=True)
class Projection:
    """One backend's layer: `weight` (dimensions, width) and `bias` (dimensions,). `digest` stands for both."""

    weight: Matrix
    bias: Vector
    digest: str

    @property
    def dimensions(self) -> int:
        return len(self.bias)

    def vectors(self, states: Matrix) -> Matrix:
        """A vector for each token's state (n, width): (n, dimensions) float32, not normalised yet.

        Raises BadVector for states of another width, or that are not finite.
        """
        if states.ndim != 2 or states.shape[1] != self.weight.shape[1]:
            raise BadVector(f"the backend's token states are {states.shape}, not {self.weight.shape[1]} wide")
        projected = states @ self.weight.T + self.bias
        if not np.isfinite(projected).all():
            raise BadVector("the state of a token is not finite")
        return projected.astype(np.float32, copy=False)

    def space_of(self, space: str) -> str:
        """The vector-space id of these projections of a model whose own space is `space`."""
        return hashlib.sha256(f"{space} {self.digest}".encode()).hexdigest()[:16]


def load_projections(file: Path | None, family: Family) -> Mapping[str, Projection]:
    """The projection of each backend of the family, by its name.

    The file is `launcher.multivector.projector`'s: `weight.BACKEND` and `bias`, float32. Raises NoProjector if it is
    missing, or not the family's.
    """
    if family.multivector is None:
        raise NoProjector(f"{family.name} has no multi-vectors")
    if file is None:
        raise NoProjector(f"is not set up here: {PULL}, and set multivector_file in the proxy's configuration")
    backends = {row.backend for row in family.tasks.values()}
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as there:
            read = {name: there[name] for name in ("bias", *(f"weight.{backend}" for backend in backends))}
    except FileNotFoundError as error:
        raise NoProjector(f"needs the family's projector, which is not here: {PULL}") from error
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise NoProjector(f"the family's projector on the server is damaged: {PULL}") from error
    bias, shape = read.pop("bias"), (family.multivector.dimensions, family.dimensions)
    if bias.shape != shape[:1] or any(weight.shape != shape for weight in read.values()):
        raise NoProjector(f"the projector on the server is for another model, not {shape}: {PULL}")
    return {name.removeprefix("weight."): _projection(weight, bias) for name, weight in read.items()}


def _projection(weight: Matrix, bias: Vector) -> Projection:
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    return Projection(weight, bias, hashlib.sha256(weight.tobytes() + bias.tobytes()).hexdigest())
