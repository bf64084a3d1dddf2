"""What a node says about itself: the bodies of its `/ready` and `/v1/models`."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy.contract.family import Family
from proxy.errors import BackendUnavailable
from proxy.front.spaces import Space
from proxy.types import ModelSize, Provenance

READY = "ready"  # of a backend in the body of `/ready`


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Space(_Body):
    space: str
    quantization: str = ""
    images: str | None = None


class _Ready(_Body):
    backends: dict[str, str]
    spaces: dict[str, _Space] = {}


class _Made(_Body):
    digest: str
    quantization: str
    engine: str
    space: str
    pooling: str
    lora: str | None = None
    size: ModelSize = ModelSize()
    image_space: str | None = None


class _Model(_Body):
    id: str
    task: str
    context_length: int
    provenance: _Made
    notice: str = ""


class _Models(_Body):
    data: list[_Model]


@dataclass(frozen=True, slots=True)
class NodeBackends:
    """The state and the vector space of each backend; under `image_space` that of its images, if it takes them."""

    backends: Mapping[str, str]
    spaces: Mapping[str, Space]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeModels:
    """What a node serves, by backend, and the longest text that it takes."""

    input_tokens: int
    notice: str
    provenance: Mapping[str, Provenance]


def image_space(backend: str) -> str:
    """The name of the space of a backend's images, beside that of its texts."""
    return f"{backend} images"


def read_ready(status: int, body: bytes) -> NodeBackends:
    """Raises BackendUnavailable for anything but a node's answer."""
    try:
        read = _Ready.model_validate_json(body)
    except ValidationError as error:
        raise BackendUnavailable(f"GET /ready: status {status}, and not the answer of a node") from error
    spaces = {name: Space(one.space, one.quantization) for name, one in read.spaces.items()}
    images = {image_space(name): Space(one.images) for name, one in read.spaces.items() if one.images}
    return NodeBackends(read.backends, {**spaces, **images})


def read_models(status: int, body: bytes, family: Family) -> NodeModels:
    """Raises BackendUnavailable for anything but the models of this family."""
    if status == 401:
        raise BackendUnavailable("it does not accept the Front's API key")
    try:
        rows = _Models.model_validate_json(body).data
    except ValidationError as error:
        raise BackendUnavailable(f"GET /v1/models: status {status}, and not the answer of a node") from error
    if not rows or rows[0].id.partition(":")[0] != family.name:
        served = rows[0].id if rows else "no model"
        raise BackendUnavailable(f"it serves {served}, and the Front {family.name}")
    made = {row.task: Provenance(**dict(row.provenance)) for row in rows}
    return NodeModels(
        input_tokens=rows[0].context_length,
        notice=rows[0].notice,
        provenance={row.backend: made[task] for task, row in family.tasks.items() if task in made},
    )
