"""Where a job's parts are run: by this command, which asks a server, or on the hosts of a cluster."""

import asyncio
import os
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from launcher.cluster import ray_start
from launcher.cluster.client import ask_cluster
from launcher.corpus.output.stored import OutputFormat
from launcher.corpus.session import RunParts, ServerChoice
from launcher.errors import ArgumentError
from launcher.settings.folders import runtime_base


class PartsEngine(StrEnum):
    HTTP = "http"
    RAY = "ray"


EngineChoice = Annotated[
    PartsEngine, typer.Option(help="ray: read and write on the hosts of the cluster whose head runs here.")
]


def parts_runner(
    engine: PartsEngine, server: ServerChoice, format_: OutputFormat
) -> tuple[ServerChoice, RunParts | None]:
    """The server to ask and what runs the parts; None: this command. Raises LauncherError."""
    if engine is PartsEngine.HTTP:
        return server, None
    ray_start.check_installed()
    if format_ is OutputFormat.NPY:
        raise ArgumentError("--engine ray writes a file per part: give another --format, as a .npy is one file")
    view = asyncio.run(ask_cluster(runtime_base(), "GET", "/status"))
    if view.access is None:
        raise ArgumentError(
            f"the cluster at {view.url} runs without Ray: leave out --engine, and give --url {view.url}"
        )
    os.environ.update(ray_start.ray_environment(view.access.token))  # Ray reads it when it is imported
    from launcher.corpus.on_hosts.spread import run_on_hosts  # noqa: PLC0415 # an extra

    return replace(server, url=server.url or view.url), partial(run_on_hosts, view.access)
