"""What a stub node refuses, in the words and the JSON of a real node."""

from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web

ADVICE = "; at most 8192 tokens are served (prefix included); shorten it or set truncate: true"


class Refusal(NamedTuple):
    """Why an input is refused: `field` is empty where a text is too long."""

    status: int
    code: str
    message: str
    field: str = ""

    @property
    def whole(self) -> str:
        return f"{self.field}: {self.message}" if self.field else f"{self.message}{ADVICE}"


def fault_of(index: int, text: str) -> Refusal | None:
    """Why this text is refused, if it is."""
    if text.startswith("LONG"):
        return Refusal(400, "INPUT_TOKEN_LIMIT_EXCEEDED", f"input {index} has {len(text) + 8192} tokens")
    if text.startswith("POISON"):
        message = "the model cannot compute this input: it crashes the engine or has no finite vector; leave it out"
        return Refusal(422, "INPUT_POISONED", message, f"input.{index}")
    return None


def all_refused(faults: Sequence[Refusal], *, listed: bool) -> web.Response:
    """The error of the first; of texts that are too long it names all, if `listed`."""
    first = faults[0]
    if first.field:
        return refused(first.status, first.code, first.whole, first)
    named = [one.message for one in faults if not one.field] if listed else [first.message]
    return refused(first.status, first.code, ", ".join(named) + ADVICE)


def refused(status: int, code: str, message: str, fault: Refusal | None = None) -> web.Response:
    """A response with this error; `fault` is listed as that of its field."""
    body: dict[str, object] = {
        "detail": message,
        "code": code,
        "request_id": "stub",
        "error": {"message": message, "type": "invalid_request_error", "param": "input", "code": code},
    }
    if fault:
        body["errors"] = [{"field": fault.field, "message": fault.message, "type": "poisoned", "input": ""}]
    return web.json_response(body, status=status)
