"""A job's run by a command: what is asked for, and how it ends in words and by its exit code."""

import asyncio
from functools import partial
from pathlib import Path
from typing import NoReturn

import typer

from launcher.corpus.display import JobDisplay
from launcher.corpus.job import JobState, job_state
from launcher.corpus.plan import CorpusPlan, GivenJob, corpus_command, resumed
from launcher.corpus.session import RunRequest, ServerChoice, run_job, stopped
from launcher.errors import JobStopped
from launcher.printable import stderr
from launcher.terminal.signals import until_second_signal

HAS_ERRORS = 3  # the exit code


def new_run(job: GivenJob, json: bool, concurrency: int) -> RunRequest:
    """The job as it was given: a new one, or the one in its folder."""
    return RunRequest(
        folder=job.folder,
        options=job.options,
        plan=job.plan,
        display=JobDisplay(stderr, json),
        concurrency=concurrency,
    )


def continued_run(folder: Path, plan: CorpusPlan, json: bool, concurrency: int) -> RunRequest:
    """The job of that plan, to be continued."""
    return RunRequest(
        folder=folder,
        options=plan.options,
        plan=partial(resumed, plan),
        display=JobDisplay(stderr, json),
        concurrency=concurrency,
    )


def run_and_exit(server: ServerChoice, request: RunRequest) -> NoReturn:
    """Run the job, say how it ended, and exit with its code."""
    ended = asyncio.run(until_second_signal(partial(run_job, server, request), request.display.say_stopping))
    state = job_state(request.folder) if ended else None
    if ended is None or state is None or not state.complete:
        raise stopped(request.folder)
    if not request.display.as_json:
        stderr.say(f"{how_far(request.folder, state)}; {ended}")
    raise typer.Exit(exit_code_of(state))


def how_far(folder: Path, state: JobState) -> str:
    """In words: how much is done, and what to type next."""
    left = "" if state.complete else f"; continue with {corpus_command('resume', folder)}"
    see = corpus_command("errors", folder)
    errors = f", {state.error_rows} without a vector: see {see}" if state.error_rows else ""
    return f"{state.rows_done} of {state.rows} rows are done{errors}{left}"


def exit_code_of(state: JobState) -> int:
    """As the epilog of `corpus run` lists them."""
    if not state.complete:
        return JobStopped.exit_code
    return HAS_ERRORS if state.error_rows else 0
