"""W3C Trace Context, Level 1: the headers `traceparent` and `tracestate`, by which a request is part of a trace."""

import re
from dataclasses import dataclass

from multidict import CIMultiDictProxy

# A later version may have more behind the flags.
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")
FIRST_VERSION = "00"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace, and the span in it that is the parent of what is done next; all in hexadecimal.

    `state` is what the tracing systems before us want to have passed on.
    """

    trace_id: str
    span_id: str
    flags: str
    state: str = ""

    @property
    def traceparent(self) -> str:
        return f"{FIRST_VERSION}-{self.trace_id}-{self.span_id}-{self.flags}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request that is sent on in this trace."""
        return {"traceparent": self.traceparent, **({"tracestate": self.state} if self.state else {})}


def given_context(headers: CIMultiDictProxy[str]) -> TraceContext | None:
    """The trace that a request belongs to; None if it names none, or not as the specification says."""
    if "traceparent" not in headers:
        return None
    given = headers.getall("traceparent")
    found = _PARENT.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None or (found[1] == FIRST_VERSION and found[5]):
        return None
    state = ",".join(headers.getall("tracestate", ()))
    return TraceContext(found[2], found[3], found[4], state if _STATE.fullmatch(state) else "")
