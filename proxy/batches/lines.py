"""The lines of a job's input: each a whole request with an id of its client's, read in parts that fit the memory."""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from proxy.bulk.ledger import RowRange
from proxy.dialects import jina
from proxy.errors import NotJson
from proxy.faults import Invalid
from proxy.types import FLOAT_BYTES, EmbedRequest
from proxy.wire import json_body
from proxy.wire.dialect import ParsedRequest

URLS = ("/v1/embeddings", "/embeddings")
PART_LINES = 64  # lost, and computed again, if the process is killed: two such parts
PART_FLOATS = 2**20  # of the results of a part, which are in memory until it is done; one line may have more
MAX_LINES_BYTES = 4 * 2**20
TOKEN_FLOATS = 128  # of a vector per token


@dataclass(frozen=True, slots=True)
class LineFault:
    """Why a line is not computed; `code` in OpenAI's words."""

    code: str
    message: str


DUPLICATE = LineFault("duplicate_custom_id", "custom_id: an earlier line has the same")


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A line: its request, or why it has none."""

    custom_id: str | None
    request: ParsedRequest | LineFault | Invalid


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Consecutive lines that are committed together."""

    rows: RowRange
    lines: Sequence[BatchLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRules:
    """What one line may be, as for a request: bytes, inputs, and how many floats a vector has.

    `answer_bytes`: of its vectors. Results are in memory until their part is committed.
    """

    max_bytes: int
    items: int
    dimensions: int
    answer_bytes: int

    def floats_of(self, request: EmbedRequest) -> int:
        """About how many floats its vectors have, at most."""
        if request.multivector:  # a token has a byte or more
            return sum(map(len, request.inputs)) * TOKEN_FLOATS
        return len(request.inputs) * self.dimensions


def count_lines(path: Path, most: int) -> int:
    """How many lines have content; stops counting beyond `most`. Blocks. Raises OSError."""
    with path.open("rb") as file:
        count = 0
        for _ in raw_lines(file, 64):
            count += 1
            if count > most:
                break
        return count


def raw_lines(file: BinaryIO, most: int) -> Iterator[bytes]:
    """The lines that have content, of each at most its first `most` + 1 bytes."""
    while line := file.readline(most + 1):
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(2**16)):
            pass
        if not line.isspace():
            yield line


def parts_to_do(
    path: Path, done: set[RowRange], rules: LineRules
) -> Generator[tuple[BatchPart, list[list[BatchLine]]], None, None]:
    """The parts that are not done, each with a call per line. Blocks. Raises OSError."""
    stops, reader = {rows.start: rows.stop for rows in done}, LineReader(rules)
    with path.open("rb") as file:
        part, start, size, skip_to = list[BatchLine](), 0, PartSize(rules), 0
        for number, raw in enumerate(raw_lines(file, rules.max_bytes)):
            line = reader.line(raw)
            skip_to = stops.get(number, skip_to)
            if part and (number < skip_to or size.is_full(line, raw)):
                yield _part(start, part)
                part, size = [], PartSize(rules)
            if number < skip_to:
                continue
            if not part:
                start = number
            part.append(line)
            size.add(line, raw)
        if part:
            yield _part(start, part)


def _part(start: int, lines: list[BatchLine]) -> tuple[BatchPart, list[list[BatchLine]]]:
    return BatchPart(RowRange(0, start, start + len(lines)), lines), [[line] for line in lines]


@dataclass(slots=True)
class PartSize:
    """How much a part has so far."""

    rules: LineRules
    lines: int = 0
    floats: int = 0
    size: int = 0  # bytes

    def add(self, line: BatchLine, raw: bytes) -> None:
        self.lines, self.size = self.lines + 1, self.size + len(raw)
        self.floats += self._floats_of(line)

    def is_full(self, line: BatchLine, raw: bytes) -> bool:
        """Whether another part should begin with this line."""
        return (
            self.lines >= PART_LINES
            or self.size + len(raw) > MAX_LINES_BYTES
            or self.floats + self._floats_of(line) > PART_FLOATS
        )

    def _floats_of(self, line: BatchLine) -> int:
        return self.rules.floats_of(line.request.request) if isinstance(line.request, ParsedRequest) else 0


@dataclass(slots=True)
class LineReader:
    """Reads a job's lines in order; it remembers their ids, because no two may have the same."""

    rules: LineRules
    _seen: set[bytes] = field(default_factory=set)  # digests: ids can be long

    def line(self, raw: bytes) -> BatchLine:
        found = self._envelope(raw)
        if isinstance(found, LineFault):
            return BatchLine(None, found)
        custom_id, body = found.get("custom_id"), found.get("body")
        if not isinstance(custom_id, str) or not custom_id:
            return BatchLine(None, LineFault("missing_custom_id", "custom_id: must be a string that is not empty"))
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        if fault := _fault(found) or (DUPLICATE if digest in self._seen else None):
            return BatchLine(custom_id, fault)
        self._seen.add(digest)
        try:
            parsed = jina.parse(body)
        except Invalid as error:
            return BatchLine(custom_id, error)
        size, most = self.rules.floats_of(parsed.request) * FLOAT_BYTES, self.rules.answer_bytes
        if size > most:
            message = f"its vectors may take {size} bytes, a line's at most {most}: send its inputs in several lines"
            return BatchLine(custom_id, LineFault("line_too_long", message))
        return BatchLine(custom_id, parsed)

    def _envelope(self, raw: bytes) -> dict[str, object] | LineFault:
        most = json_body.MAX_FIELDS + json_body.PER_INPUT * self.rules.items
        if len(raw) > self.rules.max_bytes or json_body.has_more(raw, most):
            return LineFault(
                "line_too_long", f"the line is larger than {self.rules.max_bytes} bytes or has more values"
            )
        try:
            found = json_body.loads(raw.removeprefix(b"\xef\xbb\xbf"))
        except NotJson as error:
            return LineFault("invalid_json_line", error.message.replace("the body", "the line", 1))
        return found if isinstance(found, dict) else LineFault("invalid_json_line", "the line is not a JSON object")


def _fault(found: dict[str, object]) -> LineFault | None:
    if found.get("method", "POST") != "POST":
        return LineFault("invalid_method", "method: must be POST")
    if found.get("url", URLS[0]) not in URLS:
        return LineFault("invalid_url", f"url: must be {URLS[0]}")
    return None
