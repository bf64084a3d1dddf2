"""Connects the batch APIs with the settings and with what embeds."""

from aiohttp import web

from proxy.batches.jobs import BatchJobs
from proxy.batches.lines import PART_FLOATS, LineRules
from proxy.batches.owner import AT_ONCE, BatchOwner
from proxy.batches.run import PARTS_AT_ONCE, RunContext
from proxy.batches.storage import BatchLimits, NoStorage, opened_storage
from proxy.contract.settings import EdgeOptions
from proxy.edge.body import BodyLimits
from proxy.edge.middleware import render_common_error
from proxy.http.batches.files import UPLOAD_LIMITS
from proxy.http.batches.shared import STORED_JOBS
from proxy.http.routes import BODY_LIMITS
from proxy.http.service import EmbeddingService
from proxy.types import FLOAT_BYTES
from proxy.wire.form import FORM_BYTES


def keep_batches(app: web.Application, config: EdgeOptions) -> None:
    """Give the handlers their folder. The application has its BODY_LIMITS already."""
    limits = BatchLimits(
        total_bytes=config.max_batch_bytes,
        file_bytes=config.max_batch_file_bytes,
        lines=config.max_batch_lines,
        kept_s=config.batch_kept_s,
    )
    storage = opened_storage(config.batches_dir, limits)
    app[STORED_JOBS] = storage if isinstance(storage, NoStorage) else BatchJobs(storage)
    body = app[BODY_LIMITS]
    app[UPLOAD_LIMITS] = BodyLimits(
        max_bytes=config.max_batch_file_bytes + FORM_BYTES,
        timeout_s=body.timeout_s,
        min_rate=body.min_rate,
        advice="send several files",
    )


def batch_owner(app: web.Application, config: EdgeOptions, service: EmbeddingService) -> BatchOwner | None:
    """What runs the jobs, if the server keeps any."""
    jobs = app[STORED_JOBS]
    if isinstance(jobs, NoStorage):
        return None
    limits = service.limits
    rules = LineRules(
        max_bytes=config.max_body_bytes,
        items=limits.items,
        dimensions=limits.dimensions,
        answer_bytes=max(config.max_total_answer_bytes // (AT_ONCE * PARTS_AT_ONCE), PART_FLOATS * FLOAT_BYTES),
    )
    context = RunContext(embed=service.embed, render_error=render_common_error, storage=jobs.storage, rules=rules)
    return BatchOwner(jobs, context)
