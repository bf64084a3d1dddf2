"""Builds the PlanRequest from settings and engine: each model's size at each quantisation that may be chosen."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from launcher.engine.argv import LEAN_ARCHITECTURES
from launcher.errors import ModelError
from launcher.hub.listing import offered
from launcher.models import header_check, sources
from launcher.models.gguf_file import model_header
from launcher.models.mmproj import mmproj_bytes
from launcher.planning import choices
from launcher.planning.candidates import PlanRequest
from launcher.planning.memory import ENCODERS, GIB, UNGATED, Layer, ModelWeights, Shape, weights_of
from launcher.planning.quality import by_size, quality_order
from launcher.settings.config import Mode, Settings
from launcher.settings.family import FamilyFile

AUTO = "auto"
UNQUANTIZED = frozenset({"F32", "F16", "FP16", "BF16"})
# Of a weight, in a whole file: those of mixed types have some of more bits. v4's published sizes agree within 5 %.
BITS = {"F32": 32, "BF16": 16, "F16": 16, "FP16": 16, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.8, "Q4_K_M": 5.0}
SMALLEST_HEAD = 64  # numbers of a head where the family file does not say; few models have smaller ones
BYTES_OF_A_TOKEN = 40  # in the header: its text, its type, and its merge or score

WeightsByBackend = Mapping[str, Mapping[str, ModelWeights]]  # of each backend, by quantisation


def request_of(settings: Settings, flags: Collection[str], names: Sequence[str]) -> PlanRequest | None:
    """The request for those backends; None if a file's size is unknown until it is downloaded.

    `flags` are the engine's. "auto" goes by the published figures, and without them by the files' sizes, for which the
    hub may be asked. Raises ModelError for a local file that cannot be read, ConfigError for a longest text that a file
    does not take.
    """
    host, family = settings.host, settings.family
    auto = host.models.quantization == AUTO
    published = family.weights.published
    quantization = None if auto else host.models.quantization or family.weights.quantization
    if auto and not published:
        weights = _of_any_size(settings, names)
        classes = by_size(_sizes(weights))
    else:
        classes = quality_order(published.quantizations) if published else ()
        considered = {one for names_in_class in classes for one in names_in_class}
        considered |= {quantization} if quantization else set()
        weights = {name: _weights(settings, name, considered, expected=True) for name in names}
    known = _sizes(weights).keys()
    if not known or (quantization is not None and quantization not in known):
        return None
    longest = [one.longest for of in weights.values() for one in of.values()]
    return PlanRequest(
        weights=weights,
        ranking=tuple(names_ for one in classes if (names_ := tuple(name for name in one if name in known))),
        by_size=auto and not published,
        quantization=quantization,
        tokens=header_check.bounded(settings, longest, host.max_input_tokens).max_input_tokens,
        fixed_tokens=host.max_input_tokens is not None,
        slots=host.engine.slots,
        gpu_layers=host.engine.gpu_layers,
        logits="--no-logits-for-embeddings" not in flags,
        on_demand=frozenset(name for name in names if settings.backend(name).mode is Mode.ON_DEMAND),
        encoder_bytes=mmproj_bytes(family, host.models),
        flash_attention=host.engine.flash_attention != "off",
    )


def _sizes(weights: WeightsByBackend) -> dict[str, int]:
    """The bytes of all backends' files together, of each quantisation that all of them have."""
    common = set.intersection(*(set(of) for of in weights.values()))
    return {quantization: sum(of[quantization].file_bytes for of in weights.values()) for quantization in common}


def _of_any_size(settings: Settings, names: Sequence[str]) -> dict[str, dict[str, ModelWeights]]:
    """The backends' files of every quantisation: those that are here, and unless one was chosen before, the hub's."""
    family = settings.family
    found = {name: _weights(settings, name, family.weights.quantizations) for name in names}
    here = [weights.shape for of in found.values() for weights in of.values()]
    shape = _given_shape(family) or next(iter(here), None)
    if choices.quantization(family.name) in _sizes(found) or shape is None:
        return found
    offers, _ = offered(family, [name for name in names if name not in settings.host.models.files])
    for offer in offers:
        if offer.quantization in family.weights.quantizations:
            weights = ModelWeights(file_bytes=offer.bytes, shape=shape, unquantized=_is_unquantized(offer.quantization))
            found[offer.backend].setdefault(offer.quantization, weights)
    return found


def _weights(
    settings: Settings, name: str, quantizations: Collection[str], *, expected: bool = False
) -> dict[str, ModelWeights]:
    """One backend's file at each quantisation: the user's own, else the one that is here, else as published.

    `expected`: else as large as its number of weights makes it. Each with the backend's LoRA, if that is here.
    """
    family = settings.family
    if local := settings.host.models.files.get(name):
        found = dict.fromkeys(quantizations, _read(family, local))
    else:
        found = {
            one: _cached(family, name, one) or (expected_file(family, one) if expected else _published(family, one))
            for one in quantizations
        }
    return {one: _with_lora(settings, name, one, weights) for one, weights in found.items() if weights}


def _with_lora(settings: Settings, name: str, quantization: str, weights: ModelWeights) -> ModelWeights:
    models = settings.host.models.model_copy(update={"quantization": quantization})
    loras = [sources.find_here(one) for one in sources.lora_files(settings.family, models) if one.backend == name]
    more = sum(path.stat().st_size for path in loras if path and path.is_file())
    return replace(weights, file_bytes=weights.file_bytes + more)


def _cached(family: FamilyFile, name: str, quantization: str) -> ModelWeights | None:
    path = sources.find_here(sources.model_file(family, name, quantization))
    with suppress(ModelError):  # a damaged file is reported when it is to be served
        return _read(family, path) if path else None
    return None


def _read(family: FamilyFile, path: Path) -> ModelWeights | None:
    header = model_header(path)
    weights = weights_of(header)
    return weights and replace(weights, longest=header_check.longest_text(header, family.weights))


def expected_file(family: FamilyFile, quantization: str) -> ModelWeights | None:
    """A file that is not here: as published, else by the number of weights that the family file gives."""
    return _published(family, quantization) or _expected(family, quantization)


def _published(family: FamilyFile, quantization: str) -> ModelWeights | None:
    offered, shape = family.weights, _given_shape(family)
    if shape is None or offered.published is None or quantization not in offered.published.quantizations:
        return None
    return ModelWeights(
        file_bytes=round(offered.published.quantizations[quantization].file_gib * GIB),
        shape=shape,
        unquantized=_is_unquantized(quantization),
    )


def _expected(family: FamilyFile, quantization: str) -> ModelWeights | None:
    shape, given = _given_shape(family), family.weights.shape
    bits = BITS.get(quantization.upper())
    if shape is None or given is None or given.parameters is None or bits is None:
        return None
    return ModelWeights(
        file_bytes=round(given.parameters * bits / 8) + given.vocabulary * BYTES_OF_A_TOKEN,
        shape=shape,
        unquantized=_is_unquantized(quantization),
    )


def _given_shape(family: FamilyFile) -> Shape | None:
    """The shape that the family file gives."""
    if (given := family.weights.shape) is None:
        return None
    return Shape(
        layers=(Layer(given.kv_length),) * given.layers,
        embedding_length=given.embedding_length,
        feed_forward_length=given.feed_forward_length,
        vocabulary=given.vocabulary,
        heads=given.embedding_length // SMALLEST_HEAD,
        encoder=family.weights.architecture in ENCODERS,
        lean=family.weights.architecture in LEAN_ARCHITECTURES,
        gated=family.weights.architecture not in UNGATED,
    )


def _is_unquantized(quantization: str) -> bool:
    return quantization.upper() in UNQUANTIZED  # some repositories write `f16`
