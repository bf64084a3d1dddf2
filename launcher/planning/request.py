"""Builds the PlanRequest from settings and engine: each model's size at each quantisation that may be chosen."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from launcher.errors import ConfigError, ModelError
from launcher.models.gguf_file import model_header
from launcher.planning.candidates import PlanRequest
from launcher.planning.memory import GIB, ModelWeights, Shape, weights_of
from launcher.planning.quality import quality_order
from launcher.settings.config import Mode, Settings
from launcher.settings.family import FamilyFile

AUTO = "auto"
UNQUANTIZED = frozenset({"F32", "F16", "BF16"})


def request_of(settings: Settings, flags: Collection[str], names: Sequence[str]) -> PlanRequest | None:
    """The request for those backends; None if a file's size is unknown until it is downloaded.

    `flags` are the engine's. Raises ConfigError for "auto" if the family has no published figures, ModelError for a
    local file that cannot be read.
    """
    host, offered = settings.host, settings.family.weights
    classes = quality_order(offered.published.quantizations) if offered.published else ()
    auto = host.models.quantization == AUTO
    if auto and not classes:
        raise ConfigError(f'[models] quantization = "auto": {settings.family.name} has no published figures; name one')
    quantization = None if auto else host.models.quantization or offered.quantization
    considered = {one for names_in_class in classes for one in names_in_class} | (
        {quantization} if quantization else set()
    )
    weights = {name: _weights(settings, name, considered) for name in names}
    known = considered.intersection(*weights.values())
    if quantization is not None and quantization not in known:
        return None
    return PlanRequest(
        weights=weights,
        ranking=tuple(names_ for one in classes if (names_ := tuple(name for name in one if name in known))),
        quantization=quantization,
        tokens=settings.max_input_tokens,
        fixed_tokens=host.max_input_tokens is not None,
        gpu_layers=host.engine.gpu_layers,
        logits="--no-logits-for-embeddings" not in flags,
        on_demand=frozenset(name for name in names if settings.backend(name).mode is Mode.ON_DEMAND),
    )


def _weights(settings: Settings, name: str, quantizations: Collection[str]) -> dict[str, ModelWeights]:
    """One backend's file at each quantisation: the user's own, else the cached one, else as published."""
    if local := settings.host.models.files.get(name):
        own = weights_of(model_header(local))
        return dict.fromkeys(quantizations, own) if own else {}
    found = {one: _cached(settings.family, name, one) or _published(settings.family, one) for one in quantizations}
    return {quantization: weights for quantization, weights in found.items() if weights}


def _cached(family: FamilyFile, name: str, quantization: str) -> ModelWeights | None:
    source = family.weights.models[name]
    path = try_to_load_from_cache(source.repo, source.file.format(quantization=quantization))
    with suppress(ModelError):  # a damaged file is reported when it is to be served
        return weights_of(model_header(Path(path))) if isinstance(path, str) else None
    return None


def _published(family: FamilyFile, quantization: str) -> ModelWeights | None:
    offered = family.weights
    if offered.shape is None or offered.published is None or quantization not in offered.published.quantizations:
        return None
    return ModelWeights(
        file_bytes=round(offered.published.quantizations[quantization].file_gib * GIB),
        shape=Shape(**offered.shape.model_dump()),
        unquantized=quantization in UNQUANTIZED,
    )
