"""`python -m bench.gpu PHASE… [--cpu]`: runs the phases in that order; each is saved as it goes. See `run.sh`."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import gettempdir

from bench.gpu import card, engine
from bench.gpu.machine import BenchMachine
from bench.gpu.phases import build, faults, memory, speed, truth
from bench.gpu.results import goals
from bench.gpu.results.found import Recorder, begin
from bench.gpu.scale import GPU, REHEARSAL
from bench.servers.machine import described

_Phase = Callable[[BenchMachine, Recorder], Awaitable[None]]
PHASES: dict[str, _Phase] = {
    "build": build.run_build,
    "truth": truth.run_truth,
    "memory": memory.run_memory,
    "speed": speed.run_speed,
    "faults": faults.run_faults,
}
PHASE_S = (
    500.0  # by then a phase should have ended by itself, so that the rest of its ten minutes is left for the start
)
GRACE_S = 40.0  # after that it is ended


def main() -> None:
    """Exit with 1 if a phase failed; a goal that was missed is a result, not a failure."""
    parser = argparse.ArgumentParser(prog="bench/gpu/run.sh", description=__doc__)
    parser.add_argument("phases", nargs="+", choices=PHASES, metavar="PHASE", help=f"of {', '.join(PHASES)}")
    parser.add_argument("--cpu", action="store_true", help="the rehearsal: small models, on the CPU")
    parser.add_argument("--compile", action="store_true", help="with --cpu: let the phase build compile, too")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", engine.CARRIED / "out")))
    work = Path(gettempdir()) / "trillama-gpu"
    parser.add_argument("--work", type=Path, default=work, help="for models and engines [default: %(default)s]")
    parser.add_argument("--limit", type=float, default=PHASE_S, help="seconds of a phase [default: %(default)s]")
    arguments = parser.parse_args()
    if not arguments.cpu and not card.cards():
        parser.error("there is no NVIDIA card here (nvidia-smi names none): --cpu rehearses without one")
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = [name for name in arguments.phases if not asyncio.run(_phase(name, arguments))]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


async def _phase(name: str, arguments: argparse.Namespace) -> bool:
    """Whether all parts of it came to their end."""
    ends_at = time.monotonic() + arguments.limit
    names = card.cards() if not arguments.cpu else []
    found = begin(
        name,
        card=" + ".join(names) or "no card",
        rehearsal=arguments.cpu,
        machine=described(),
        out=arguments.out,
    )
    with found.part(name):
        async with asyncio.timeout(arguments.limit + GRACE_S):
            await PHASES[name](await _machine(name, arguments, found, ends_at), found)
    print(goals.judged(found.result))
    return not found.failures


async def _machine(name: str, arguments: argparse.Namespace, found: Recorder, ends_at: float) -> BenchMachine:
    folder = arguments.work / ("engine-cpu" if arguments.cpu else "engine")
    if name == "build" and (arguments.compile or not arguments.cpu):
        started = time.monotonic()
        await engine.build_offline(folder, cuda=not arguments.cpu)
        found.set("built: seconds", time.monotonic() - started)
    return BenchMachine(
        scale=REHEARSAL if arguments.cpu else GPU,
        on_gpu=not arguments.cpu,
        engine=await engine.find_or_unpack(folder, on_gpu=not arguments.cpu),
        out=arguments.out,
        work=arguments.work,
        ends_at=ends_at,
    )


if __name__ == "__main__":
    main()
