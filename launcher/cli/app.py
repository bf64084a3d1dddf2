"""The `trillama` command, and where each of its commands is: a module is imported when its command is used."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from launcher import __version__
from launcher.errors import ConfigError
from launcher.printable import stdout
from launcher.settings.config import read_file
from launcher.settings.file_kind import FileKind, mistaken_file
from launcher.terminal.command_group import CommandGroup
from launcher.terminal.options import EXIT_CODES

COMMANDS = {
    "serve": "launcher.cli.serve:serve_app",
    "proxy": "launcher.cli.app:proxy_app",
    "embed": "launcher.cli.embed:embed_app",
    "plan": "launcher.cli.plan:plan_app",
    "doctor": "launcher.doctor.report:doctor_app",
    "compare": "launcher.measure.compare_cli:compare_app",
    "bench": "launcher.measure.bench_cli:bench_app",
    "tune": "launcher.measure.tune_cli:tune_app",
    "status": "launcher.cli.running:running_app",
    "logs": "launcher.cli.running:running_app",
    "restart": "launcher.cli.running:running_app",
    "reload": "launcher.cli.running:running_app",
    "corpus": "launcher.corpus.cli.commands:corpus_app",
    "models": "launcher.cli.models:models_app",
    "engine": "launcher.cli.engine:engine_app",
    "families": "launcher.cli.families:families_app",
    "service": "launcher.cli.service:service_app",
    "cluster": "launcher.cluster.cluster_cli:cluster_app",
}


class _Trillama(CommandGroup):
    modules = COMMANDS


app = typer.Typer(
    cls=_Trillama,
    help="A private, drop-in api.jina.ai on your own machine.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
proxy_app = typer.Typer()


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        stdout.print(f"trillama {__version__}", highlight=False)
        raise typer.Exit


@proxy_app.command("proxy", epilog=EXIT_CODES)
def proxy(
    config: Annotated[Path, typer.Option("--config", help="The proxy's TOML file; see configs/proxy.toml.")],
) -> None:
    """Run the proxy alone, for llama-servers that run elsewhere."""
    if mistaken := mistaken_file(read_file(config), config, FileKind.PROXY):
        raise ConfigError(mistaken)
    os.execv(sys.executable, (sys.executable, "-P", "-m", "proxy", "--config", str(config)))  # noqa: S606 # no shell wanted
