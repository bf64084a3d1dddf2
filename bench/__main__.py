"""`python -m bench MEASURE …`: the table of goals, as ratios of contenders measured in turn on one machine."""

import argparse
import asyncio
import datetime
import os
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.made import BODY4, MID4, PROPORTIONS, SMALL, THIN, ModelShape, made
from bench.measures import answers, front, gateways, images, infinity, latency, throughput
from bench.rows import Circumstances, Found, save_results
from bench.servers.contenders import Host
from bench.servers.environments import REQUIREMENTS
from bench.servers.machine import busy_percent, described
from launcher.engine import argv, discovery
from launcher.engine.discovery import Engine, Origin
from launcher.settings.folders import cache_dir

Measure = Callable[[Host, int], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class Planned:
    """A measure, and the model that it uses."""

    shape: ModelShape
    measure: Measure


MEASURES = {
    "added": Planned(MID4, latency.added),
    "added-thin": Planned(THIN, latency.added),
    "interactive": Planned(BODY4, latency.interactive),
    "saturated": Planned(MID4, throughput.saturated),
    "saturated-body": Planned(BODY4, throughput.saturated),
    "saturated-real": Planned(PROPORTIONS, throughput.saturated),
    "waits": Planned(BODY4, throughput.waits),
    "serialised": Planned(THIN, answers.serialised),
    "memory": Planned(THIN, answers.proxy_memory),
    "stress": Planned(SMALL, answers.stress),
    "gateways": Planned(THIN, gateways.gateways),
    "gateways-small": Planned(SMALL, gateways.gateways),
    "front": Planned(SMALL, front.before_many_nodes),
    "images": Planned(SMALL, images.beside_the_engine),
    "infinity": Planned(BODY4, infinity.beside_infinity),
}


def main() -> None:
    """Run the named measures, one after the other; each is saved as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("measures", nargs="*", help=f"of {', '.join(MEASURES)}; default: all of them")
    parser.add_argument("--engine", type=Path, help="trillama's llama-server [default: as `trillama serve` finds it]")
    parser.add_argument("--stock", type=Path, help="everybody else's llama-server [default: the same]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        choices=REQUIREMENTS,
        help="others to measure beside, each installed into an environment of its own below the cache folder",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.measures) - MEASURES.keys():
        parser.error(f"no such measure: {', '.join(unknown)}")
    console = Console()
    options = [word for name in arguments.others for word in ("--with", name)]
    options += [f"--{name}={value}" for name in ("engine", "stock") if (value := getattr(arguments, name))]
    options += [f"--{name}={getattr(arguments, name)}" for name in ("threads", "seed")]
    for name in arguments.measures or MEASURES:
        planned = MEASURES[name]
        busy = busy_percent()
        found = asyncio.run(_take(planned, arguments))
        circumstances: Circumstances = {
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": described(),
            "busy": f"{busy:.0f}",
            "command": shlex.join(("python", "-m", "bench", name, *options)),
        }
        save_results(name, found, circumstances)
        _print(found, console)


async def _take(planned: Planned, arguments: argparse.Namespace) -> Found:
    ours = await discovery.find_engine(arguments.engine)
    stock = await _stock(arguments.stock) if arguments.stock else ours
    files = made(planned.shape, cache_dir() / "bench" / "models")
    others = frozenset(arguments.others)
    host = Host(made=files, engine=ours, stock=stock, threads=arguments.threads, others=others)
    return await planned.measure(host, arguments.seed)


async def _stock(path: Path) -> Engine:
    return await discovery.probe((str(path.absolute()),), Origin.CONFIGURED, argv.environment(os.environ))


def _print(found: Found, console: Console) -> None:
    table = Table("measure", "goal", "seen", "met", title=found.model)
    for row in found.rows:
        table.add_row(row.measure, row.goal, row.seen, {True: "yes", False: "NO", None: ""}[row.met])
    console.print(table)
    for name, figures in found.figures.items():
        console.print(name, {key: round(value, 4) for key, value in figures.items()})
    for note in found.notes:
        console.print(note)


if __name__ == "__main__":
    main()
