"""The command `trillama tune`: its arguments, the table of measurements, and the profile."""

import asyncio
import datetime
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.bar import Bar
from rich.table import Table

from launcher.engine import cpu_fallback, discovery, profile
from launcher.engine import devices as gpu
from launcher.engine.profile import Profile
from launcher.errors import ArgumentError, LauncherError
from launcher.fleet.prepare import available_settings, files
from launcher.host.cores import physical_cores, usable_cores
from launcher.measure import tune as tuning
from launcher.measure.loadgen import LENGTHS
from launcher.measure.tune import Bench, Measured, Setting, TuneOutcome, gain
from launcher.models import header_check
from launcher.planning import sizing
from launcher.printable import json_line, stderr, stdout
from launcher.settings.config import Settings
from launcher.settings.folders import runtime_base
from launcher.supervision import probes
from launcher.supervision.deployment import url_of
from launcher.supervision.standalone import Standalone
from launcher.terminal.options import ConfigFile, Demo, Tiny, settings_of
from launcher.terminal.progress import Display
from launcher.terminal.signals import until_signal

TUNE_EPILOG = """
Exit codes: 0 measured; 1 other failure, e.g. trillama serves here already; 2 wrong arguments; 66 a model file is
missing or wrong; 69 no usable llama-server; 70 the engine does not work with the settings as they are; 75 the memory is
too small; 78 wrong configuration; 130 stopped before it was done.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The outcome, the profile made of it, and measurements with smaller physical batches."""

    outcome: TuneOutcome
    profile: Profile
    smaller: tuple[Measured, ...]


tune_app = typer.Typer()


@tune_app.command("tune", epilog=TUNE_EPILOG)
def tune(
    config: ConfigFile = None,
    demo: Demo = False,
    tiny: Tiny = False,
    backend: Annotated[
        str | None, typer.Option(help="The model to measure with; all have the same size [default: the first].")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="About how long it may take.")] = 5.0,
    seed: Annotated[int, typer.Option(help="The same seed measures on the same texts.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Keep the best for `trillama serve`.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Find the fastest slots, flash attention and threads here. Settings that change the vectors are discarded."""
    settings = settings_of(config, demo=demo, tiny=tiny)
    _check_backend(settings, backend)
    found = asyncio.run(until_signal(_run(settings, backend, minutes=minutes, seed=seed)))
    if found is None:
        raise typer.Exit(130)
    if json:
        sys.stdout.buffer.write(json_line(asdict(found.outcome) | {"profile": found.profile.model_dump()}))
    else:
        _print(found)
    _keep(settings, found.profile, write=write)


def _check_backend(settings: Settings, backend: str | None) -> None:
    models = settings.family.weights.models
    if backend and backend not in models:
        raise ArgumentError(f"--backend {backend}: no such model; there are {', '.join(models)}")


async def _run(settings: Settings, backend: str | None, *, minutes: float, seed: int) -> Tuned:
    until_s = time.monotonic() + minutes * 60
    if await probes.backends_ready(url_of(settings.host)) is not None:
        raise LauncherError(f"trillama serves at {url_of(settings.host)}: stop it first, it disturbs the measurement")
    display = Display(stderr)
    with display.live():
        settings = await available_settings(settings, display)
        _check_backend(settings, backend)
        backend = backend or next(iter(settings.family.weights.models))
        settings, run, model, origin = await _prepared(settings, backend, display)
    first = Setting(
        slots=run.slots, batch_tokens=run.batch_tokens, threads=run.threads, flash_attention=run.flash_attention
    )
    axes = tuning.axes(first, physical=physical_cores(), usable=usable_cores())
    count = 1 + sum(map(len, axes)) + len(axes)  # about one per axis is measured again
    bench = Bench(run, model, seed=seed, kind_s=tuning.kind_seconds(minutes, count))
    with stderr.status("starting") as status:

        async def measure(setting: Setting) -> Measured:
            status.update(f"{_name(setting)}, {max(0.0, until_s - time.monotonic()):.0f} s left")
            return await bench.measure(setting)

        outcome = await tuning.search(first, axes, measure, until_s)
        smaller = [
            await measure(one) for one in tuning.smaller_batches(outcome.best.setting) if time.monotonic() < until_s
        ]
    return Tuned(outcome=outcome, profile=_profile(backend, origin, outcome.best), smaller=tuple(smaller))


async def _prepared(
    settings: Settings, backend: str, display: Display
) -> tuple[Settings, Standalone, Path, profile.ProfileOrigin]:
    """What would be served, as `launcher.fleet.prepare` decides it, for one backend."""
    found = await discovery.find_engine(settings.host.engine.llama_server)
    devices = await gpu.read_devices(found) if settings.host.engine.gpu_layers else gpu.without_gpus()
    settings = cpu_fallback.adapt_gpu_layers(settings, devices)
    asked = settings.host.max_input_tokens
    decision = sizing.decide(settings, found, devices, (backend,))
    settings, placed = decision.settings, decision.placements.get(backend)
    served = await files(settings, (backend,), display)
    model = served.models[backend]
    settings = header_check.bounded(settings, served.longest(settings.family.weights), asked)
    options = settings.host.engine
    run = Standalone(
        log="tune.log",
        engine=found,
        policy=settings.host.supervision,
        runtime=settings.host.runtime_dir or runtime_base(),
        slots=options.slots,
        batch_tokens=settings.max_input_tokens,
        gpu_layers=options.gpu_layers,
        threads=options.threads,
        flash_attention=options.flash_attention,
        devices=placed.devices if placed else (),
        tensor_split=placed.tensor_split if placed else (),
        rules=settings.family.weights,
        lora=served.loras.get(backend),
    )
    return settings, run, model, profile.origin_of(settings, found, devices, model)


def _profile(backend: str, origin: profile.ProfileOrigin, best: Measured) -> Profile:
    return Profile(
        backend=backend,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        origin=origin,
        slots=best.setting.slots,
        threads=best.setting.threads,
        flash_attention=best.setting.flash_attention,
        tokens_per_s={kind: round(speed, 1) for kind, speed in best.tokens_per_s.items()},
    )


def _print(found: Tuned) -> None:
    outcome, first = found.outcome, found.outcome.measured[0]
    gains = {id(one): gain(one, first) for one in outcome.measured}
    most = max(gains.values())
    table = Table("slots", "FA", "threads", title=f"tokens per second; {found.profile.origin.machine}")
    for kind in LENGTHS:
        table.add_column(kind, justify="right")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", width=16)
    for one in outcome.measured:
        table.add_row(
            *_words(one.setting),
            *[f"{one.tokens_per_s[kind]:.0f}" if kind in one.tokens_per_s else "-" for kind in LENGTHS],
            f"{gains[id(one)]:.2f} x" if not one.dropped else "dropped",
            Bar(size=most, begin=0, end=gains[id(one)]),
            style="bold" if one is outcome.best else "",
        )
    stdout.print(table)
    for one in outcome.measured:
        if one.dropped:
            stdout.say(f"dropped: {_name(one.setting)}: {one.dropped}")
    if outcome.left_out:
        stdout.say(f"not tried for lack of time: {'; '.join(map(_name, outcome.left_out))}; raise --minutes")
    for one in found.smaller:
        if (faster := gain(one, outcome.best)) > tuning.GAIN:
            size = one.setting.batch_tokens
            stdout.say(f"max_input_tokens = {size} would make texts that fit {faster:.2f} times as fast")


def _keep(settings: Settings, best: Profile, *, write: bool) -> None:
    """Write the profile, and say on stderr which of it takes effect."""
    if not write:
        stderr.say("nothing was written: with --write `trillama serve` will use the best of these")
        return
    path = profile.profile_path(settings)
    profile.write_profile(best, path)
    fixed = [name for name in profile.TUNED if name in settings.host.engine.model_fields_set]
    ignored = f"; {' and '.join(fixed)} under [engine] stay as they are set" if fixed else ""
    stderr.say(f"{path}: `trillama serve` uses it from now on{ignored}")


def _name(setting: Setting) -> str:
    slots, flash, threads = _words(setting)
    return f"{slots} slots, flash attention {flash}, threads {threads}, -ub {setting.batch_tokens}"


def _words(setting: Setting) -> tuple[str, str, str]:
    return str(setting.slots), setting.flash_attention, str(setting.threads or "auto")
