"""The `trillama` command: arguments in, exit code out. Each command only calls the module that does the work."""

import asyncio
import os
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from launcher import __version__
from launcher.cli import embed as oneshot
from launcher.cli import models, running, serve
from launcher.cli import plan as plan_cli
from launcher.cli.engine import engine_app
from launcher.cli.families import families_app
from launcher.cli.service import service_app
from launcher.cluster.cluster_cli import cluster_app
from launcher.corpus.cli.commands import corpus_app
from launcher.doctor import report
from launcher.errors import ArgumentError, ConfigError
from launcher.fleet.address import given_url
from launcher.measure import bench_cli, compare_cli, tune_cli
from launcher.printable import stderr, stdout
from launcher.settings.config import read_file
from launcher.settings.file_kind import FileKind, mistaken_file
from launcher.terminal.command_group import CommandGroup
from launcher.terminal.given_texts import given_texts
from launcher.terminal.options import EXIT_CODES, ApiKey, ConfigFile, Demo, Images, Port, Tiny, Url, settings_of
from launcher.terminal.signals import until_signal

app = typer.Typer(
    cls=CommandGroup,
    help="A private, drop-in api.jina.ai on your own machine.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    JSON = "json"
    NPY = "npy"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        stdout.print(f"trillama {__version__}", highlight=False)
        raise typer.Exit


@app.command("serve", epilog=EXIT_CODES)
def serve_(
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    images: Images = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one [default: 8080].")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written as JSON (url, port, pid, spaces) when it serves; removed at its end.")
    ] = None,
) -> None:
    """Start the llama-servers and the proxy, and serve until Ctrl-C."""
    overrides = {"host": host, "port": port}
    read = partial(settings_of, config, demo=demo, tiny=tiny, images=images, overrides=overrides)
    asyncio.run(serve.run_serve(read, out=stdout, err=stderr, ready_path=ready_file))


@app.command("proxy", epilog=EXIT_CODES)
def proxy(
    config: Annotated[Path, typer.Option("--config", help="The proxy's TOML file; see configs/proxy.toml.")],
) -> None:
    """Run the proxy alone, for llama-servers that run elsewhere."""
    if mistaken := mistaken_file(read_file(config), config, FileKind.PROXY):
        raise ConfigError(mistaken)
    os.execv(sys.executable, (sys.executable, "-P", "-m", "proxy", "--config", str(config)))  # noqa: S606 # no shell wanted


@app.command("embed", epilog=EXIT_CODES)
def embed(
    text: Annotated[list[str] | None, typer.Argument(help="The texts; - is standard input, a text per line.")] = None,
    file: Annotated[list[Path] | None, typer.Option("--file", help="A text per line; may be repeated.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|URL", help="An image or a PDF; the server fetches URLs. May be repeated."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="One that the family has [default: the family's].")] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Keep only the first N dimensions.")] = None,
    format: Annotated[Format, typer.Option(help="json: the API's response; npy: a float32 NumPy file.")] = Format.JSON,  # noqa: A002
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    url: Url = None,
    port: Port = None,
    api_key: ApiKey = None,
) -> None:
    """Embed texts and images with a running server, or start one. Images come after the texts."""
    if format is Format.NPY and sys.stdout.isatty():
        raise ArgumentError("--format npy writes binary data, and standard output is a terminal: add > vectors.npy")
    address = given_url(url, port)
    texts = given_texts(text or [], file or [], sys.stdin) if text or file or not image else ()
    call = oneshot.EmbedCall(texts=texts, images=tuple(image or ()), task=task, dimensions=dimensions)
    settings = settings_of(config, demo=demo, tiny=tiny, images=bool(image))
    session = oneshot.run_embed(settings, call, url=address, api_key=api_key, err=stderr)
    answer = asyncio.run(until_signal(session))
    if answer is None:
        raise typer.Exit(130)
    if format is Format.NPY:
        sys.stdout.buffer.write(answer.npy())
    elif sys.stdout.isatty():
        stdout.say(answer.body.decode(errors="replace"))
    else:
        sys.stdout.buffer.write(answer.body + b"\n")


@app.command("plan", epilog=EXIT_CODES)
def plan(
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    images: Images = False,
    vram: Annotated[
        str | None, typer.Option(help="Plan for these GPUs, e.g. 8G,24G, or none [default: this machine's].")
    ] = None,
    ram: Annotated[
        str | None, typer.Option(help="Plan for this much memory, e.g. 16G [default: what is free].")
    ] = None,
) -> None:
    """Show what fits into the memory, and why. That is quantisation, devices, longest text."""
    memory = plan_cli.given_memory(vram, ram)
    plan_cli.show_plan(settings_of(config, demo=demo, tiny=tiny, images=images), memory, stdout)


@app.command("doctor", epilog=EXIT_CODES)
def doctor(
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every model file completely, for its SHA-256.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of lines.")] = False,
) -> None:
    """Check all that serving needs. Each line is ok, warn or fail with its fix. Exits with 1 if a check fails."""
    fine = report.show_findings(partial(settings_of, config, demo=demo, tiny=tiny), stdout, deep=deep, as_json=as_json)
    raise typer.Exit(0 if fine else 1)


app.command("compare", epilog=compare_cli.COMPARE_EPILOG)(compare_cli.compare)
app.command("bench", epilog=bench_cli.BENCH_EPILOG)(bench_cli.bench)
app.command("tune", epilog=tune_cli.TUNE_EPILOG)(tune_cli.tune)
for command in (running.status, running.logs, running.restart, running.reload):
    app.command(epilog=EXIT_CODES)(command)


app.add_typer(corpus_app, name="corpus")
app.add_typer(models.models_app, name="models")
app.add_typer(engine_app, name="engine")
app.add_typer(families_app, name="families")
app.add_typer(service_app, name="service")
app.add_typer(cluster_app, name="cluster")
