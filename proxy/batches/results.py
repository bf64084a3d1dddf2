"""The results of a job's lines: each a line of JSON, written part by part."""

import errno
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

import orjson

from proxy import metrics
from proxy.batches.lines import BatchLine
from proxy.batches.records import BatchFault, ResultKind
from proxy.batches.storage import BatchStorage
from proxy.bulk.durable import write_durably
from proxy.bulk.ledger import PartLedger, RowRange, files_of
from proxy.errors import ProxyError, StorageFull
from proxy.types import EmbedResult
from proxy.wire.dialect import ErrorRenderer, ParsedRequest
from proxy.wire.json_slices import json_pieces

# Of OSErrors that may pass: a job waits for that.
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


@dataclass(frozen=True, slots=True)
class LineResult:
    """The result of a line. It becomes JSON as it is written: vectors are five times as large in JSON."""

    kind: ResultKind
    content: Mapping[str, object]
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class PartCounts:
    """The numbers of lines and tokens of parts."""

    completed: int = 0
    failed: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, results: Sequence[LineResult]) -> "PartCounts":
        failed = sum(one.kind is ResultKind.ERRORS for one in results)
        return cls(len(results) - failed, failed, sum(one.tokens for one in results))

    def __add__(self, other: "PartCounts") -> "PartCounts":
        return PartCounts(self.completed + other.completed, self.failed + other.failed, self.tokens + other.tokens)


def counts_on_disk(ledger: PartLedger) -> PartCounts:
    """Of all parts that are done. Blocks. Raises OSError."""
    paths = (path for _, path in files_of(ledger.folder, ledger.suffix))
    return sum((PartCounts(**orjson.loads(path.read_bytes())) for path in paths), PartCounts())


def write_part(
    ledger: PartLedger, storage: BatchStorage, rows: RowRange, results: Sequence[LineResult]
) -> BatchFault | None:
    """Commit a part. Blocks. Returns what prevents it, if that may pass. Raises OSError for what will not."""
    try:
        for kind in ResultKind:
            path = ledger.path(rows).with_suffix(kind.suffix)
            lines = [one for one in results if one.kind is kind]
            if lines:
                write_durably(path, _writing_lines(lines, storage))
            else:
                path.unlink(missing_ok=True)  # of a run that was killed before the part was done
        ledger.commit(rows, _writing(orjson.dumps(PartCounts.of(results))))
    except StorageFull as error:
        return BatchFault(code=error.code, message=error.message)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return BatchFault(code="DISK_FULL", message=f"the results cannot be written: {error.strerror}")
    return None


def _writing_lines(results: Sequence[LineResult], storage: BatchStorage) -> Callable[[BinaryIO], None]:
    """What writes them, a slice in memory at a time. It raises StorageFull."""

    def write(file: BinaryIO) -> None:
        for one in results:
            for piece in chain(json_pieces(one.content), (b"\n",)):
                storage.take(len(piece))
                file.write(piece)

    return write


def _writing(content: bytes) -> Callable[[BinaryIO], int]:
    return lambda file: file.write(content)


def answered(line: BatchLine, parsed: ParsedRequest, result: EmbedResult) -> LineResult:
    """A line with its vectors."""
    metrics.INPUTS.labels(result.task).inc(result.inputs)
    metrics.TOKENS.labels(result.task).inc(result.tokens)
    response = {"status_code": 200, "request_id": uuid.uuid4().hex, "body": parsed.render(result)}
    return LineResult(ResultKind.OUTPUT, _outer(line, response), result.tokens)


def unanswered(line: BatchLine, code: str, message: str) -> LineResult:
    """A line that was no request, or got no answer in all tries."""
    return LineResult(ResultKind.ERRORS, _outer(line, None, {"code": code, "message": message}))


def refused(line: BatchLine, render: ErrorRenderer, error: ProxyError) -> LineResult:
    """A line whose request got an error."""
    request_id = uuid.uuid4().hex
    rendered = render(error, request_id)
    response = {"status_code": rendered.status, "request_id": request_id, "body": rendered.body}
    return LineResult(ResultKind.ERRORS, _outer(line, response))


def _outer(line: BatchLine, response: object, error: object = None) -> dict[str, object]:
    return {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": line.custom_id, "response": response, "error": error}
