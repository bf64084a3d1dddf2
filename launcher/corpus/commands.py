"""`trillama corpus`: run, status, resume, errors, verify."""

import asyncio
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from launcher.corpus.display import JobDisplay
from launcher.corpus.estimate import show_estimate
from launcher.corpus.job import ERRORS_FOLDER, JobState, done_parts, job_state
from launcher.corpus.on_hosts.engine import EngineChoice, PartsEngine, parts_runner
from launcher.corpus.output.error_rows import error_lines
from launcher.corpus.output.stored import OutputFormat, VectorType
from launcher.corpus.output.writers import check_packages
from launcher.corpus.plan import PLAN, CorpusPlan, GivenJob, GivenServer, JobOptions, corpus_command, read_plan, resumed
from launcher.corpus.rows.records import UsedColumns
from launcher.corpus.rows.sources import InputFormat, check_folder, given_files
from launcher.corpus.session import RunRequest, ServerChoice, run_job, stopped
from launcher.corpus.verification import verify_job
from launcher.errors import ArgumentError, JobStopped
from launcher.fleet.address import given_url
from launcher.printable import json_line, stderr, stdout
from launcher.terminal.given_texts import STDIN
from launcher.terminal.options import ApiKey, ConfigFile, Demo, Port, Tiny, Url, settings_of
from launcher.terminal.signals import until_second_signal, until_signal

CORPUS_EPILOG = """
Exit codes: 0 every row has its vector; 3 done, but there are rows without a vector, see `trillama corpus errors`; 75
stopped, and can be resumed; 65 an input is damaged or has changed, or the vectors would be others than those that are
there; else as of `trillama --help`.
"""
HAS_ERRORS = 3  # the exit code

corpus_app = typer.Typer(help="Embed files of any size, to files; it survives whatever happens.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The folder given to `corpus run` as --out.")]
Concurrency = Annotated[
    int, typer.Option(min=1, max=1024, help="Most calls in flight. It adapts to the server; give 2 a node.")
]
Dedupe = Annotated[bool, typer.Option("--dedupe", help="Compute a text that comes again soon only once.")]
Json = Annotated[bool, typer.Option("--json", help="For programs: a JSON object per second.")]


@corpus_app.command("run", epilog=CORPUS_EPILOG)
def corpus_run(
    inputs: Annotated[list[str], typer.Argument(help="Files or globs in quotes: .jsonl, .csv, .tsv, .parquet, .txt.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for the vectors; it is also the job's record.")],
    text: Annotated[str | None, typer.Option(help="The texts' column [default: text, content, body, passage].")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The ids' column [default: the rows' numbers].")] = None,
    keep: Annotated[str | None, typer.Option(help="More columns to keep, with commas between.")] = None,
    from_: Annotated[InputFormat | None, typer.Option("--from", help="The inputs' format [default: by name].")] = None,
    format: Annotated[OutputFormat, typer.Option(help="What to write.")] = OutputFormat.PARQUET,  # noqa: A002
    dtype: Annotated[VectorType, typer.Option(help="The type of the vectors' numbers.")] = VectorType.FLOAT32,
    task: Annotated[str | None, typer.Option(help="One that the family has [default: the server's].")] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Keep only the first N dimensions.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask a server for that has several.")] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long.")] = False,
    part_rows: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Rows of a part [default: 4096, or 16 MiB of float32].")
    ] = None,
    concurrency: Concurrency = 16,
    dedupe: Dedupe = False,
    engine: EngineChoice = PartsEngine.HTTP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many rows, tokens, hours, GiB.")] = False,
    json: Json = False,
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    url: Url = None,
    port: Port = None,
    api_key: ApiKey = None,
) -> None:
    """Embed every row of files.

    With the running server, or one started for this. Typed again, it resumes the job.
    """
    options = JobOptions(
        task=task,
        dimensions=dimensions,
        model=model,
        truncate=truncate,
        format=format,
        dtype=dtype,
        part_rows=part_rows,
    )
    columns = UsedColumns(text=text, id=id_, keep=tuple(keep.split(",")) if keep else ())
    check_folder(out)
    if not dry_run:
        check_packages(format)
    if STDIN in inputs:
        _check_standard_input(out, dry_run=dry_run)
    files = given_files(inputs, from_, columns, out)
    given = _given(config, demo, tiny, given_url(url, port))
    server, run_parts = parts_runner(engine, _server(given, api_key), format)
    if dry_run:
        asyncio.run(until_signal(show_estimate(server, files, options, stdout)))
        return
    asked = given.model_copy(update={"url": server.url})  # Ray's own, if it was not given
    request = RunRequest(
        folder=out,
        options=options,
        plan=GivenJob(folder=out, files=files, options=options, server=asked).plan,
        display=JobDisplay(stderr, json),
        concurrency=concurrency,
        dedupe=dedupe,
        run_parts=run_parts,
    )
    _run(server, request)


def _check_standard_input(out: Path, *, dry_run: bool) -> None:
    """Raises ArgumentError if it would have to be read twice."""
    if dry_run or (out / PLAN).exists():
        advice = "--dry-run needs a file" if dry_run else f"there is a job in {out}: {corpus_command('resume', out)}"
        raise ArgumentError(f"standard input can be read only once, and {advice}")


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
    _run(server, replace(_again(folder, plan, json, concurrency), dedupe=dedupe, run_parts=run_parts))


@corpus_app.command("errors", epilog=CORPUS_EPILOG)
def corpus_errors(
    folder: Folder,
    retry: Annotated[bool, typer.Option("--retry", help="Compute these rows again.")] = False,
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
        _run(server, replace(_again(folder, plan, json, concurrency), retry=True))
    for line in error_lines(folder / ERRORS_FOLDER, done_parts(folder, plan)):
        sys.stdout.buffer.write(json_line({"input": str(plan.inputs[line.part.source].path), **line.facts}))


@corpus_app.command("status", epilog=CORPUS_EPILOG)
def corpus_status(
    folder: Folder,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show how much of a job is done. Asks no server, and changes nothing."""
    state = job_state(folder)
    if json:
        sys.stdout.buffer.write(json_line(asdict(state)))
    else:
        stdout.say(_sentence(folder, state))
    raise typer.Exit(_code(state))


@corpus_app.command("verify", epilog=CORPUS_EPILOG)
def corpus_verify(
    folder: Folder,
    sample: Annotated[int, typer.Option(min=0, help="How many rows to embed again and compare; 0: none.")] = 32,
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


def _again(folder: Path, plan: CorpusPlan, json: bool, concurrency: int) -> RunRequest:
    """The job of that plan, to be continued."""
    return RunRequest(
        folder=folder,
        options=plan.options,
        plan=partial(resumed, plan),
        display=JobDisplay(stderr, json),
        concurrency=concurrency,
    )


def _run(server: ServerChoice, request: RunRequest) -> NoReturn:
    """Run the job, say how it ended, and exit with its code."""
    ended = asyncio.run(until_second_signal(partial(run_job, server, request), request.display.say_stopping))
    state = job_state(request.folder) if ended else None
    if ended is None or state is None or not state.complete:
        raise stopped(request.folder)
    if not request.display.as_json:
        stderr.say(f"{_sentence(request.folder, state)}; {ended}")
    raise typer.Exit(_code(state))


def _sentence(folder: Path, state: JobState) -> str:
    left = "" if state.complete else f"; continue with {corpus_command('resume', folder)}"
    errors = (
        f", {state.error_rows} without a vector: see {corpus_command('errors', folder)}" if state.error_rows else ""
    )
    return f"{state.rows_done} of {state.rows} rows are done{errors}{left}"


def _code(state: JobState) -> int:
    if not state.complete:
        return JobStopped.exit_code
    return HAS_ERRORS if state.error_rows else 0
