"""The models that are served: random weights, written once into a cache folder, and a family file of their size."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from tests.support.models.tiny_models import DType, write_model
from tests.support.servers.stack import FAMILY_FILE

QWEN_VOCABULARY = 151_936


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A model's sizes; `why` says in tables what it represents."""

    name: str
    why: str
    layers: int
    n_embd: int
    heads: int
    n_ff: int
    vocabulary: int
    dtype: DType


MID4 = ModelShape(
    name="mid4",
    why="compute-bound: 4 layers x 896, n_ff 4864, Qwen's 151,936 tokens, Q8_0",
    layers=4,
    n_embd=896,
    heads=14,
    n_ff=4864,
    vocabulary=QWEN_VOCABULARY,
    dtype="Q8_0",
)
BODY4 = ModelShape(
    name="body4",
    why="the body alone, as an engine without the output head computes it: 4 layers x 896, n_ff 4864, 640 tokens, Q8_0",
    layers=4,
    n_embd=896,
    heads=14,
    n_ff=4864,
    vocabulary=640,
    dtype="Q8_0",
)
PROPORTIONS = ModelShape(
    name="jina4",
    why="the proportions of the real one: 4 layers x 2048, n_ff 11008, 151,936 tokens, Q8_0",
    layers=4,
    n_embd=2048,
    heads=16,
    n_ff=11008,
    vocabulary=QWEN_VOCABULARY,
    dtype="Q8_0",
)
THIN = ModelShape(
    name="thin",
    why="serialisation-bound: 1 layer x 2048, n_ff 256, 640 tokens, Q8_0",
    layers=1,
    n_embd=2048,
    heads=16,
    n_ff=256,
    vocabulary=640,
    dtype="Q8_0",
)
SMALL = ModelShape(
    name="small",
    why="2 layers x 64, n_ff 128, 640 tokens, F16",
    layers=2,
    n_embd=64,
    heads=4,
    n_ff=128,
    vocabulary=640,
    dtype="F16",
)


@dataclass(frozen=True, slots=True)
class Made:
    """The files of a shape."""

    shape: ModelShape
    model: Path
    family: Path


def made(shape: ModelShape, folder: Path) -> Made:
    """The model and the family file of a shape in `folder`, written on first use."""
    folder.mkdir(parents=True, exist_ok=True)
    model, family = folder / f"{shape.name}.gguf", folder / f"{shape.name}.toml"
    if not model.exists():
        unfinished = model.with_suffix(".unfinished")
        write_model(
            unfinished,
            layers=shape.layers,
            n_embd=shape.n_embd,
            heads=shape.heads,
            n_ff=shape.n_ff,
            vocabulary=shape.vocabulary,
            dtype=shape.dtype,
        )
        unfinished.rename(model)
    whole = tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))
    sizes = {"dimensions": shape.n_embd, "trained_dimensions": [shape.n_embd]}
    family.write_text(tomli_w.dumps({**whole, **sizes}), encoding="utf-8")
    return Made(shape, model, family)
