"""`trillama corpus`: run, status, resume, errors, verify."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import typer

from launcher.corpus.cli.options import (
    AskedModel,
    AskedTask,
    Concurrency,
    Dedupe,
    FirstDimensions,
    Folder,
    FromFormat,
    GivenInputs,
    IdColumn,
    Json,
    JsonStatus,
    KeptColumns,
    NumberType,
    OnlyEstimate,
    OutFolder,
    PartRows,
    Retry,
    SampledRows,
    TextColumn,
    ToFormat,
    Truncate,
)
from launcher.corpus.cli.runs import continued_run, exit_code_of, how_far, new_run, run_and_exit
from launcher.corpus.estimate import estimated
from launcher.corpus.job import ERRORS_FOLDER, done_parts, job_state
from launcher.corpus.on_hosts.engine import EngineChoice, PartsEngine, parts_runner
from launcher.corpus.output.error_rows import error_lines
from launcher.corpus.output.stored import OutputFormat, VectorType
from launcher.corpus.output.writers import check_packages
from launcher.corpus.plan import PLAN, GivenFile, GivenJob, GivenServer, JobOptions, corpus_command, read_plan
from launcher.corpus.rows.records import UsedColumns
from launcher.corpus.rows.sources import check_folder, given_files
from launcher.corpus.session import ServerChoice
from launcher.corpus.verification import verify_job
from launcher.errors import ArgumentError
from launcher.fleet.address import given_url
from launcher.printable import json_line, stderr, stdout
from launcher.terminal.given_texts import STDIN
from launcher.terminal.options import ApiKey, ConfigFile, Demo, Port, Tiny, Url, settings_of
from launcher.terminal.signals import until_signal

CORPUS_EPILOG = """
Exit codes: 0 every row has its vector; 3 done, but there are rows without a vector, see `trillama corpus errors`; 75
stopped, and can be resumed; 65 an input is damaged or has changed, or the vectors would be others than those that are
there; else as of `trillama --help`.
"""

corpus_app = typer.Typer(help="Embed files of any size into files, in jobs that can be resumed.", no_args_is_help=True)


@corpus_app.command("run", epilog=CORPUS_EPILOG)
def corpus_run(
    inputs: GivenInputs,
    out: OutFolder,
    text: TextColumn = None,
    id_: IdColumn = None,
    keep: KeptColumns = None,
    from_: FromFormat = None,
    format_: ToFormat = OutputFormat.PARQUET,
    dtype: NumberType = VectorType.FLOAT32,
    task: AskedTask = None,
    width: FirstDimensions = None,
    model: AskedModel = None,
    truncate: Truncate = False,
    part_rows: PartRows = None,
    concurrency: Concurrency = 16,
    dedupe: Dedupe = False,
    engine: EngineChoice = PartsEngine.HTTP,
    dry_run: OnlyEstimate = False,
    json: Json = False,
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    url: Url = None,
    port: Port = None,
    api_key: ApiKey = None,
) -> None:
    """Embed every row of files. With the running server, or one started for this. Typed again, it resumes the job."""
    options = JobOptions(
        task=task, dimensions=width, model=model, truncate=truncate, format=format_, dtype=dtype, part_rows=part_rows
    )
    _check_before(inputs, out, format_, dry_run=dry_run)
    files = given_files(inputs, from_, UsedColumns(text=text, id=id_, keep=_names(keep)), out)
    given = _given(config, demo, tiny, given_url(url, port))
    server, run_parts = parts_runner(engine, _server(given, api_key), format_)
    if dry_run:
        _estimate(server, files, options)
    asked = given.model_copy(update={"url": server.url})  # Ray's own, if it was not given
    job = GivenJob(folder=out, files=files, options=options, server=asked)
    run_and_exit(server, replace(new_run(job, json, concurrency), dedupe=dedupe, run_parts=run_parts))


def _check_before(inputs: Sequence[str], out: Path, format_: OutputFormat, *, dry_run: bool) -> None:
    """Raises ArgumentError, before a folder is made, for what would fail after hours or read standard input twice."""
    check_folder(out)
    if not dry_run:
        check_packages(format_)
    if STDIN in inputs and (dry_run or (out / PLAN).exists()):
        advice = "--dry-run needs a file" if dry_run else f"there is a job in {out}: {corpus_command('resume', out)}"
        raise ArgumentError(f"standard input can be read only once, and {advice}")


def _names(comma_separated: str | None) -> tuple[str, ...]:
    return tuple(comma_separated.split(",")) if comma_separated else ()


@corpus_app.command("resume", epilog=CORPUS_EPILOG)
def corpus_resume(
    folder: Folder,
    concurrency: Concurrency = 16,
    dedupe: Dedupe = False,
    engine: EngineChoice = PartsEngine.HTTP,
    json: Json = False,
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    url: Url = None,
    port: Port = None,
    api_key: ApiKey = None,
) -> None:
    """Continue a job that was stopped or killed. Only what is not done is computed."""
    plan = read_plan(folder)
    given = plan.server(_given(config, demo, tiny, given_url(url, port)))
    server, run_parts = parts_runner(engine, _server(given, api_key), plan.options.format)
    run_and_exit(server, replace(continued_run(folder, plan, json, concurrency), dedupe=dedupe, run_parts=run_parts))


@corpus_app.command("errors", epilog=CORPUS_EPILOG)
def corpus_errors(
    folder: Folder,
    retry: Retry = False,
    concurrency: Concurrency = 16,
    json: Json = False,
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    url: Url = None,
    port: Port = None,
    api_key: ApiKey = None,
) -> None:
    """Show the rows without a vector, or retry them. A JSON object each."""
    plan = read_plan(folder)
    if retry:
        server = _server(plan.server(_given(config, demo, tiny, given_url(url, port))), api_key)
        run_and_exit(server, replace(continued_run(folder, plan, json, concurrency), retry=True))
    for line in error_lines(folder / ERRORS_FOLDER, done_parts(folder, plan)):
        sys.stdout.buffer.write(json_line({"input": str(plan.inputs[line.part.source].path), **line.facts}))


@corpus_app.command("status", epilog=CORPUS_EPILOG)
def corpus_status(
    folder: Folder,
    json: JsonStatus = False,
) -> None:
    """Show how much of a job is done. Asks no server, and changes nothing."""
    state = job_state(folder)
    if json:
        sys.stdout.buffer.write(json_line(asdict(state)))
    else:
        stdout.say(how_far(folder, state))
    raise typer.Exit(exit_code_of(state))


@corpus_app.command("verify", epilog=CORPUS_EPILOG)
def corpus_verify(
    folder: Folder,
    sample: SampledRows = 32,
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    url: Url = None,
    port: Port = None,
    api_key: ApiKey = None,
) -> None:
    """Check a job's output.

    Each row is there once, each part is whole, each vector finite, and a sample is what the server computes now; else
    the exit code is 1.
    """
    plan = read_plan(folder)
    server = _server(plan.server(_given(config, demo, tiny, given_url(url, port))), api_key)
    found = asyncio.run(until_signal(verify_job(folder, plan, server, sample)))
    if found is None:
        raise typer.Exit(130)
    for fault in found.faults:
        stdout.say(fault)
    if found.faults:
        raise typer.Exit(1)
    compared = f"; {found.compared} embedded again, least cosine {found.least_cosine:.6f}" if found.compared else ""
    stdout.say(f"{found.rows} rows, each once; every vector is finite{compared}")


def _given(config: Path | None, demo: bool, tiny: bool, url: str | None) -> GivenServer:
    return GivenServer(url=url, config=config and config.absolute(), demo=demo, tiny=tiny)


def _server(given: GivenServer, api_key: str | None) -> ServerChoice:
    settings = settings_of(given.config, demo=given.demo, tiny=given.tiny)
    return ServerChoice(settings=settings, url=given.url, api_key=api_key, err=stderr)


def _estimate(server: ServerChoice, files: Sequence[GivenFile], options: JobOptions) -> NoReturn:
    """Say what embedding these files would take, and exit."""
    found = asyncio.run(until_signal(estimated(server, files, options)))
    if found is None:
        raise typer.Exit(130)
    stdout.say(found)
    raise typer.Exit
