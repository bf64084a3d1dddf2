"""Bodies that are JSON and no valid request: which fields are at fault, and why."""

from dataclasses import dataclass

from proxy.errors import BadRequest
from proxy.quoting import shown

MAX_FAULTS = 10  # reported in one error


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One field that failed validation; `input` is the value that was sent, shortened."""

    field: str
    message: str
    type: str
    input: str


class Invalid(BadRequest):
    """The body is JSON but not a valid request; `faults` lists the faults found, MAX_FAULTS at most."""

    status = 422
    code = "VALIDATION_ERROR"

    def __init__(self, *faults: Fault) -> None:
        reported = faults[:MAX_FAULTS]
        message = "; ".join(f"{fault.field}: {fault.message}" for fault in reported)
        more = f"; and {len(faults) - len(reported)} more" if len(faults) > len(reported) else ""
        super().__init__(message + more, param=faults[0].field.split(".")[0])
        self.faults = reported


class PoisonedInput(Invalid):
    """A text or image that crashed the engine, or gave NaN, twice: it is not sent there again for a while.

    422, not 502: it would fail again, and clients retry 5xx by themselves.
    """

    code = "INPUT_POISONED"

    def __init__(self, index: int) -> None:
        message = "the model cannot compute this input: it crashes the engine or has no finite vector; leave it out"
        super().__init__(Fault(field=f"input.{index}", message=message, type="poisoned", input=""))
        self.index = index


def invalid(field: str, message: str, *, kind: str = "value_error", given: object = "") -> Invalid:
    """An error for one fault; `given` is shortened."""
    return Invalid(Fault(field=field, message=message, type=kind, input=shown(given)))


class BadImage(Exception):
    """An image that cannot be embedded: `args[0]` says why, to be read behind its index."""

    def at(self, index: int) -> Invalid:
        """The error of the input at that index."""
        return invalid(f"input.{index}", self.args[0], kind="bad_image")
