"""A request's line in the log."""

from dataclasses import dataclass

from proxy.telemetry.requests import RequestRecord

MAX_PATH = 200  # characters


@dataclass(frozen=True, slots=True)
class RequestLine:
    """Written as words, or as `facts` where the log is JSON. `path` is as the client sent it, without its query."""

    record: RequestRecord
    path: str

    def __str__(self) -> str:
        one = self.record
        said = f"{self.message} {one.seconds * 1e3:.1f} ms {one.id}"
        if one.error:
            said += f" {one.error}"
        elif one.usage:
            said += f" {one.usage.task} inputs={one.usage.inputs} tokens={one.usage.tokens}"
        return f"{said} trace={one.trace}" if one.trace else said

    @property
    def message(self) -> str:
        return f"{self.record.method} {self.path[:MAX_PATH]} {self.record.status}"

    def facts(self) -> dict[str, object]:
        one = self.record
        facts: dict[str, object] = {
            "message": self.message,
            "request_id": one.id,
            "trace_id": one.trace,
            "method": one.method,
            "route": one.route,
            "status": one.status,
            "ms": round(one.seconds * 1e3, 1),
            "error": one.error,
        }
        if one.usage:
            facts |= {"task": one.usage.task, "inputs": one.usage.inputs, "tokens": one.usage.tokens}
            facts |= {"wait_ms": round(one.usage.wait_s * 1e3, 1), "compute_ms": round(one.usage.compute_s * 1e3, 1)}
        return {name: value for name, value in facts.items() if value != ""}
