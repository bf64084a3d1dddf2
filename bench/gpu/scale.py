"""How large everything is: on a GPU, and in the rehearsal."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.gpu.models import Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """`checked` is the model whose vectors are verified, `real` the one whose memory and speed are measured.

    `lengths`: tokens of the verified texts, prefix included. `ubatches`: the physical batches whose memory is measured.
    `window_s`: of one measurement under load. `pairs`: of requests in turn, for the added latency.
    """

    checked: Sizes
    real: Sizes
    lengths: Sequence[int]
    pool: int
    ubatches: Sequence[int]
    batch_tokens: int
    kinds: Sequence[str]
    clients: Sequence[int]
    window_s: float
    pairs: int
    restarts: int

    @property
    def longest(self) -> int:
        return self.lengths[-1]


GPU = Scale(
    checked=Sizes(layers=4, n_embd=2048, heads=16, n_ff=11008, vocabulary=151_936),
    real=Sizes(layers=36, n_embd=2048, heads=16, n_ff=11008, vocabulary=151_936),
    lengths=(3, 4, 5, 7, 8, 9, 10, 16, 31, 33, 64, 127, 129, 255, 512, 513, 1000, 2047, 4096, 8192),
    pool=40,
    ubatches=(512, 2048, 8192),
    batch_tokens=8192,
    kinds=("short", "medium", "long", "mixed"),
    clients=(1, 8, 64),
    window_s=2.5,
    pairs=200,
    restarts=20,
)
REHEARSAL = Scale(
    checked=Sizes(layers=2, n_embd=256, heads=4, n_ff=512, vocabulary=640),
    real=Sizes(layers=3, n_embd=256, heads=4, n_ff=512, vocabulary=640),
    lengths=(3, 4, 5, 9, 33, 129, 512),
    pool=6,
    ubatches=(512, 1024),
    batch_tokens=1024,
    kinds=("short", "mixed"),
    clients=(1, 8),
    window_s=0.7,
    pairs=40,
    restarts=2,
)
