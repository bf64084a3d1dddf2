"""A PEFT adapter of one linear layer: reads its configuration, and merges it into the layer."""

import math
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from launcher.arrays import F32
from launcher.errors import ModelError


class LoraConfig(BaseModel):
    """The fields of `adapter_config.json` that determine the merged matrix; the defaults are PEFT's.

    Sources: `peft.LoraConfig`, and the original model's `custom_lora_module.py` for `scale`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    r: Annotated[int, Field(gt=0)]
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None

    @property
    def scale(self) -> float:
        """The factor of B @ A."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def config_of(content: bytes, where: str) -> LoraConfig:
    """The adapter's configuration. Raises ModelError if its merge is more than W + scale * (B @ A)."""
    try:
        config = LoraConfig.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"])) or "it"
        raise ModelError(f"{where}: {field}: {fault['msg']}: this is no LoRA adapter that we support") from error
    settings = ("use_dora", "lora_bias", "fan_in_fan_out", "rank_pattern", "alpha_pattern")
    if unknown := [name for name in settings if getattr(config, name)]:
        raise ModelError(f"{where}: {unknown[0]} is set, which the merge does not support: a newer trillama may")
    return config


def merged(weight: F32, a: F32, b: F32, config: LoraConfig, what: str) -> F32:
    """`weight` (out, in) + scale * `b` (out, r) @ `a` (r, in), in float32. Raises ModelError for other shapes."""
    rows, columns = weight.shape
    if (a.shape, b.shape) != ((config.r, columns), (rows, config.r)):
        raise ModelError(
            f"{what}: A is {a.shape} and B is {b.shape}, but rank {config.r} of a layer {weight.shape} needs "
            f"{(config.r, columns)} and {(rows, config.r)}: the family file names the wrong tensors"
        )
    return np.asarray(weight + np.float32(config.scale) * (b @ a), dtype=np.float32)
