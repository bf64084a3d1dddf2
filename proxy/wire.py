"""What the dialects share: JSON → a validated wire model, and what a dialect gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from proxy.embedding import EmbedRequest, EmbedResult
from proxy.errors import Fault, Invalid
from proxy.inputs import inputs_of


@dataclass(frozen=True, slots=True)
class Asked:
    """A parsed request, and how its answer is written in the dialect that it came in."""

    request: EmbedRequest
    render: Callable[[EmbedResult], object]


Parse = Callable[[object], Asked]  # of a JSON body; raises Invalid with every fault found


class Wire(BaseModel):
    """A body as a client sends it: fields that are not named are ignored, null means absent."""

    model_config = ConfigDict(extra="ignore", frozen=True)


T = TypeVar("T", bound=Wire)


def validated(model: type[T], body: object) -> T:
    """The body as that model. Raises Invalid with every fault found."""
    if not isinstance(body, dict):
        raise Invalid(Fault(field="body", message="must be a JSON object", type="object_type", input=repr(body)[:80]))
    try:
        return model.model_validate({field: value for field, value in body.items() if value is not None})
    except ValidationError as error:
        raise Invalid(*_faults(error)) from error


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not a boolean")  # noqa: TRY004 # pydantic reports only ValueError
    return value


def one_or_more(value: object) -> object:
    """A single value as a list of one."""
    return value if isinstance(value, list) else [value]


Inputs = Annotated[tuple[str | tuple[int, ...], ...], BeforeValidator(inputs_of)]
Count = Annotated[int, BeforeValidator(_no_bool)]


def _faults(error: ValidationError) -> list[Fault]:
    return [
        Fault(
            field=".".join(map(str, fault["loc"])),
            message=fault["msg"],
            type=fault["type"],
            input="" if fault["type"] == "missing" else repr(fault["input"])[:80],
        )
        for fault in error.errors(include_url=False, include_context=False)
    ]
