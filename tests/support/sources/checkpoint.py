"""A synthetic checkpoint of the original's layout: shards with an index, and a PEFT adapter with a LoRA per task."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from launcher.settings.family import MultiVectorSource
from tests.support.sources.hub import Hub
from tests.support.sources.place import BACKENDS

F32 = npt.NDArray[np.float32]
SHARDS = 3
FILLER = 2**18  # bytes of a tensor that nobody needs
RANK, ALPHA = 4, 8


@dataclass(slots=True)
class Checkpoint:
    """Its tensors in float32, exact in BF16, and what of it can be spoilt before it is put on a hub."""

    layout: MultiVectorSource
    weight: F32
    bias: F32
    lora: dict[str, tuple[F32, F32]]
    config: dict[str, object] = field(default_factory=lambda: {"r": RANK, "lora_alpha": ALPHA, "peft_type": "LORA"})
    needed_bytes: int = 0  # of its files, to have the projector

    def put(self, hub: Hub) -> None:
        """Write it: the projector is in the second of three shards, beside larger ones."""
        layout, filler = self.layout, np.random.default_rng(1).bytes(FILLER)
        index: dict[str, str] = {}
        for number in range(1, SHARDS + 1):
            name = f"model-{number:05}-of-{SHARDS:05}.safetensors"
            tensors = {f"model.layers.{number}.a": filler, f"model.layers.{number}.z": filler}
            if number == 2:
                ours = {layout.weight: self.weight, layout.bias: self.bias}
                content, self.needed_bytes = safetensors({**dict(list(tensors.items())[:1]), **ours, **tensors}, ours)
            else:
                content, _ = safetensors(tensors, ())
                ours = {}
            hub.add(layout.repo, name, content)
            index |= dict.fromkeys({**tensors, **ours}, name)
        loras = {
            name.format(backend=task): factor
            for task, pair in self.lora.items()
            for name, factor in zip((layout.lora_a, layout.lora_b), pair, strict=True)
        }
        adapter, needed = safetensors({"base_model.model.model.layers.0.lora_A.code.weight": filler, **loras}, loras)
        small = {
            layout.index: {"metadata": {"total_size": 1}, "weight_map": index},
            layout.adapter_config: self.config,
        }
        for name, value in small.items():
            hub.add(layout.repo, name, json.dumps(value).encode())
        hub.add(layout.repo, layout.adapter, adapter)
        self.needed_bytes += needed + sum(len(json.dumps(value)) for value in small.values())


def checkpoint(layout: MultiVectorSource, width: int) -> Checkpoint:
    """Random tensors for a model of that width, the same each time."""
    rng = np.random.default_rng(0)

    def bf16(*shape: int) -> F32:
        bits = rng.standard_normal(shape, dtype=np.float32).view(np.uint32)
        return (bits & np.uint32(0xFFFF0000)).view(np.float32)

    rows = layout.dimensions
    return Checkpoint(
        layout=layout,
        weight=bf16(rows, width),
        bias=bf16(rows),
        lora={task: (bf16(RANK, width), bf16(rows, RANK)) for task in BACKENDS},
    )


def safetensors(tensors: Mapping[str, F32 | bytes], needed: Mapping[str, F32] | tuple[()]) -> tuple[bytes, int]:
    """A safetensors file of those tensors, arrays as BF16; and how many bytes it takes to read the `needed`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data, needed_bytes = b"", 0
    for name, values in tensors.items():
        content = values if isinstance(values, bytes) else (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        shape = (len(content) // 2,) if isinstance(values, bytes) else values.shape
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
        needed_bytes += len(content) if name in needed else 0
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + data, 8 + len(head) + needed_bytes
