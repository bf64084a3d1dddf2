"""The command `trillama bench`: its arguments, and its findings for people or as JSON."""

import asyncio
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from launcher.fleet.address import given_url
from launcher.fleet.temporary import authorization, served
from launcher.measure import bench as benching
from launcher.measure.bench import Cell, Findings, Load
from launcher.printable import json_line, stderr, stdout
from launcher.settings.config import Settings
from launcher.terminal.options import ApiKey, ConfigFile, Demo, Port, Tiny, Url, settings_of
from launcher.terminal.signals import until_signal

BENCH_EPILOG = """
Exit codes: 0 measured, and every vector was right; 1 a request failed, or a vector was wrong; 2 wrong arguments; 66 a
model file is missing or wrong; 69 no usable llama-server, or nothing answers at --url; 75 it does not start; 78 wrong
configuration; 130 stopped before it was done.
"""

bench_app = typer.Typer()


@bench_app.command("bench", epilog=BENCH_EPILOG)
def bench(
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    url: Url = None,
    port: Port = None,
    api_key: ApiKey = None,
    task: Annotated[str | None, typer.Option(help="One that the family has: it chooses the model.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For each of the twelve measurements.")] = 3.0,
    seed: Annotated[int, typer.Option(help="The same seed sends the same texts.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Measure the running server, or one started for this. Short, medium, long, mixed texts; 1, 8, 32 at once."""
    settings, address = settings_of(config, demo=demo, tiny=tiny), given_url(url, port)
    headers = authorization(settings.host, api_key)
    found = asyncio.run(until_signal(_run(settings, address, task, headers, Load(seconds=seconds, seed=seed))))
    if found is None:
        raise typer.Exit(130)
    if json:
        sys.stdout.buffer.write(json_line(asdict(found)))
    else:
        _print(found)
    if found.faults:
        raise typer.Exit(1)


async def _run(settings: Settings, url: str | None, task: str | None, headers: dict[str, str], load: Load) -> Findings:
    with stderr.status("starting") as status:

        async def use(at: str) -> Findings:
            async with benching.connected(at, task, headers) as client:
                return await benching.measure(client, load, status.update)

        return await served(settings, task, use, url=url, err=stderr)


def _print(found: Findings) -> None:
    table = Table("texts", "at once")
    for heading in ("tokens/text", "texts/s", "tokens/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for cell in found.cells:
        table.add_row(cell.kind, str(cell.clients), f"{cell.tokens_per_text:.0f}", *_figures(cell))
    stdout.print(table)
    if left_out := [cell for cell in found.cells if cell.summary is None]:
        longest = max(cell.needs_s for cell in left_out)
        stdout.say(f"too slow to measure in this time: --seconds {longest / benching.MAX_OVERRUN:.0f} measures all")
    for fault in found.faults:
        stdout.say(fault)
    if not found.faults:
        stdout.say(f"every vector is finite, and independent of other requests (least cosine {found.worst_cosine:.6f})")


def _figures(cell: Cell) -> tuple[str, ...]:
    one = cell.summary
    if one is None:
        return ("-",) * 4
    return (f"{one.texts_per_s:.1f}", f"{one.tokens_per_s:.0f}", f"{one.p50_s * 1e3:.1f}", f"{one.p99_s * 1e3:.1f}")
