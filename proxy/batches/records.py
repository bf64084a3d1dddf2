"""What is known of a job: what was asked, written once, and how far it is, written by the owner of the jobs alone."""

import time
from enum import StrEnum

from pydantic import Field

from proxy.batches.storage import StoredRecord, new_id

JOB_PREFIX = "batch_"


class ResultKind(StrEnum):
    """The two results of a job; the value ends the id of the file."""

    OUTPUT = "output"
    ERRORS = "errors"

    @property
    def suffix(self) -> str:
        return f".{self}.jsonl"


class BatchStatus(StrEnum):
    """OpenAI's names of a job's states; jobs here neither finalize nor expire."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.CANCELLED})


class BatchApi(StrEnum):
    """Whose API a job was made by: OpenAI keeps the results of a cancelled job."""

    OPENAI = "openai"
    JINA = "jina"


class BatchSpec(StoredRecord):
    """What a client asked for."""

    id: str
    client: str
    api: BatchApi
    created_at: float
    input_file_id: str | None = None
    metadata: dict[str, str] | None = None
    kept_s: float | None = None  # the results, after the job's end; None: as long as the settings say


class BatchFault(StoredRecord):
    """Why a job failed as a whole, or why it does not get on at present."""

    code: str
    message: str


class BatchState(StoredRecord):
    """How far a job is. `spaces`: the vector spaces of its results, by task. `obstacle`: it waits for this to pass."""

    status: BatchStatus = BatchStatus.VALIDATING
    started_at: float | None = None
    ended_at: float | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    tokens: int = 0
    spaces: dict[str, str] = Field(default_factory=dict)
    fault: BatchFault | None = None
    obstacle: BatchFault | None = None


def new_spec(client: str, api: BatchApi, **more: object) -> BatchSpec:
    return BatchSpec.model_validate(
        {"id": new_id(JOB_PREFIX), "client": client, "api": api, "created_at": time.time(), **more}
    )
