"""The output of `trillama doctor`: lines for people, JSON for programs."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated

import orjson
import typer
from rich.text import Text

from launcher.doctor.checks import CheckLine, examine
from launcher.doctor.finding import Level
from launcher.printable import Terminal, stdout
from launcher.settings.config import Settings
from launcher.terminal.options import EXIT_CODES, ConfigFile, Demo, Tiny, settings_of

STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


doctor_app = typer.Typer()


@doctor_app.command("doctor", epilog=EXIT_CODES)
def doctor(
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every model file completely, for its SHA-256.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of lines.")] = False,
) -> None:
    """Check all that serving needs. Each line is ok, warn or fail with its fix. Exits with 1 if a check fails."""
    fine = show_findings(partial(settings_of, config, demo=demo, tiny=tiny), stdout, deep=deep, as_json=as_json)
    raise typer.Exit(0 if fine else 1)


def show_findings(load: Callable[[], Settings], out: Terminal, *, deep: bool, as_json: bool) -> bool:
    """Print a line for each check; True if none failed. `load` reads the configuration."""
    lines = asyncio.run(examine(load, deep=deep))
    if as_json:
        rows = [
            {"check": one.name, "level": one.finding.level, "text": one.finding.text, "fix": one.finding.fix}
            for one in lines
        ]
        out.say(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
    else:
        for line in lines:
            _print(line, out)
    return not any(one.finding.level is Level.FAIL for one in lines)


def _print(line: CheckLine, out: Terminal) -> None:
    level, text = line.finding.level, line.finding.text
    out.print(Text.assemble((f"{level:<5}", STYLES[level]), f"{line.name:<16}{text}"), soft_wrap=True)
    if line.finding.fix:
        out.print(Text(f"{'':<21}→ {line.finding.fix}"), soft_wrap=True)
