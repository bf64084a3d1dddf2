"""`trillama models`: the model files on this machine and on the hub."""

import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from launcher.errors import ArgumentError, ConfigError, LauncherError, ModelError
from launcher.host.disk import amount, free_bytes
from launcher.hub import cache
from launcher.hub.cache import MMPROJ
from launcher.hub.listing import Offer, offered
from launcher.models import inventory, mmproj, pull, sources
from launcher.models.inventory import InventoryRow
from launcher.models.verification import check_files
from launcher.multivector import projector
from launcher.printable import json_line, stderr, stdout
from launcher.settings.config import Settings, load
from launcher.settings.folders import hub_cache
from launcher.settings.models import ModelSettings
from launcher.terminal.options import ConfigFile
from launcher.terminal.progress import Display
from launcher.terminal.signals import until_signal

MODELS_EPILOG = """
Exit codes: 0 done; 1 other failure; 2 wrong arguments; 66 a file is damaged, in use, missing or unavailable;
75 the hub is unreachable, or the disk is full; 78 wrong configuration; 130 stopped before it was done.
"""

models_app = typer.Typer(help="The model files: here and on the hub.", no_args_is_help=True, epilog=MODELS_EPILOG)

Quantization = Annotated[str | None, typer.Argument(help="E.g. Q8_0 [default: the config's].")]
Backends = Annotated[list[str] | None, typer.Option("--backend", help="Only this model; may be repeated.")]
Encoder = Annotated[bool, typer.Option("--images", help="The vision encoder too, as with `images = true`.")]


@models_app.command("list", epilog=MODELS_EPILOG)
def list_(
    config: ConfigFile = None,
    remote: Annotated[bool, typer.Option("--remote/--local", help="Ask the hub too, or look only here.")] = True,
    images: Encoder = False,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show the files that are here and those that the hub offers. Also their use, and how much the disk can take."""
    settings = _settings(config)
    family = settings.family
    wanted = _with_images(settings.host.models, images=images)
    encoder_bytes = mmproj.mmproj_bytes(family, wanted)
    rows = inventory.rows(family, wanted, sources.files_here(family), cache.stopped_downloads(family))
    offers, reasons = offered(family, family.weights.models) if remote else ((), ())
    if json:
        facts = {
            "cache": str(hub_cache()),
            "free_bytes": free_bytes(hub_cache()),
            "local": [row.facts() for row in rows],
            "remote": [_facts(offer, rows) for offer in offers],
            "unreachable": reasons,
            "broken": cache.describe_damage(family),
        }
        sys.stdout.buffer.write(json_line(facts))
        return
    for row in rows:
        size = amount(row.bytes) if row.bytes else "-"
        name = f"{row.backend} LoRA" if row.lora else row.backend
        line = f"{name:<14} {row.quantization or '-':<8} {size:>9}  {row.use:<12}  {row.path or ''}"
        stdout.say(line.rstrip())  # not a table: a path must stay whole to be copied
    if any(row.backend == MMPROJ and not row.path for row in rows):
        stdout.say(f"{MMPROJ} for images: {amount(encoder_bytes)}, with `trillama models pull --images`")
    if offers:
        stdout.print(_matrix(tuple(family.weights.models), offers, rows))
    stdout.say(f"{amount(free_bytes(hub_cache()))} free in {hub_cache()}")
    for sentence in cache.describe_damage(family):
        stderr.say(sentence)
    for reason in reasons:
        stderr.say(f"only what is on this machine is listed, not what the hub offers: {reason}")


@models_app.command("pull", epilog=MODELS_EPILOG)
def pull_(
    quantization: Quantization = None,
    backend: Backends = None,
    config: ConfigFile = None,
    multivector: Annotated[
        bool, typer.Option("--multivector", help="Not a model, but the few tensors that multi-vectors need (2 MB).")
    ] = False,
    images: Encoder = False,
) -> None:
    """Download the models, or continue a stopped download. Each is checked against the hub's SHA-256."""
    settings = _settings(config)
    if multivector:
        _pull_projector(settings, only=not (quantization or backend or images))
        return
    backends = _chosen(settings, backend)
    wanted = _with_images(settings.host.models, images=images)
    plan = pull.plan_pull(settings.family, wanted, quantization, backends)
    for file in plan.own:
        stdout.say(f"{file.backend}: {file.local} is your own file: nothing to download")
    if plan.missing or plan.bytes:
        size = f"{amount(plan.bytes)} to download; " if plan.bytes else ""
        stderr.say(f"{size}licence of the models: {settings.family.licence}")
    display = Display(stderr)
    with display.live():
        done = asyncio.run(until_signal(pull.run_pull(settings.family, plan, display.downloading)))
    if done is None:
        raise typer.Exit(130)
    for name, path in done.items():
        stdout.say(f"{name}: {path}")


@models_app.command("verify", epilog=MODELS_EPILOG)
def verify(config: ConfigFile = None) -> None:
    """Read every file again and compare it with the hub's SHA-256. Needs no network."""
    settings, wrong = _settings(config), 0
    again = f" --config {shlex.quote(str(config))}" if config else ""
    for checked in check_files(settings.family, settings.host.models, again):
        stdout.say(checked.line)
        wrong += not checked.right
    if wrong:
        raise ModelError(f"{wrong} file{'s' if wrong > 1 else ''} not as expected: run the commands above")


@models_app.command("remove", epilog=MODELS_EPILOG)
def remove(
    quantization: Quantization = None,
    backend: Backends = None,
    config: ConfigFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a quantisation's files, and unfinished downloads. What all quantisations share goes with the last."""
    settings = _settings(config)
    backends = _chosen(settings, backend)
    weights = settings.family.weights
    wanted = weights.named(quantization or settings.host.models.quantization or weights.quantization)
    every = sources.files_here(settings.family)
    here = [file for file in every if file.backend in backends]
    files = [file for file in here if file.quantization == wanted]
    kept = {file.backend for file in every if file.backend != MMPROJ and not file.lora and file not in files}
    files += [file for file in here if file.lora and not file.quantization and file.backend not in kept]
    files += [file for file in every if file.backend == MMPROJ and not kept]
    partials = [partial for partial in cache.stopped_downloads(settings.family) if partial.backend in backends]
    if not files and not partials:
        there = ", ".join(dict.fromkeys(file.quantization for file in here if file.quantization)) or "nothing"
        raise ModelError(f"no file of {wanted} is here to remove; here is: {there}")
    for path, size in [(file.path, file.bytes) for file in files] + [
        (partial.path, partial.bytes) for partial in partials
    ]:
        stdout.say(f"{amount(size):>9}  {path}")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Remove them?")):
        raise LauncherError("nothing was removed: add --yes to remove them")
    removed = cache.remove_cached(files, partials)
    for partial in removed.busy:
        stdout.say(f"{partial.backend}: its download runs in another process and was left alone")
    stdout.say(f"{amount(removed.freed_bytes)} freed")


def _settings(config: Path | None) -> Settings:
    settings = load(config)
    if settings.host.demo:
        raise ConfigError("demo models are made when needed and not kept here: leave out the demo's --config")
    sources.model_files(settings.family, ModelSettings(files=settings.host.models.files))  # checks their names
    return settings


def _with_images(models: ModelSettings, *, images: bool) -> ModelSettings:
    return models.model_copy(update={"images": images or models.images})


def _pull_projector(settings: Settings, *, only: bool) -> None:
    if not only:
        raise ArgumentError("--multivector downloads no model: leave out the quantisation, --backend and --images")
    path = projector.cached_projector(settings.family)
    if path is None:
        stderr.say(f"licence of the models: {settings.family.licence}")
        path = projector.projector_path(settings.family)
        projector.save_projector(projector.fetch_projector(settings.family), path)
    stdout.say(f"multivector: {path}")


def _chosen(settings: Settings, backends: Sequence[str] | None) -> tuple[str, ...]:
    there = tuple(settings.family.weights.models)
    if unknown := [name for name in backends or () if name not in there]:
        raise ArgumentError(f"--backend {unknown[0]}: no such model; there are {', '.join(there)}")
    return tuple(name for name in there if name in (backends or there))


def _facts(offer: Offer, rows: Sequence[InventoryRow]) -> dict[str, object]:
    return {
        "backend": offer.backend,
        "quantization": offer.quantization,
        "bytes": offer.bytes,
        "here": _is_here(offer, rows),
        "fits": offer.bytes <= free_bytes(hub_cache()),
    }


def _is_here(offer: Offer, rows: Sequence[InventoryRow]) -> bool:
    here = {(row.backend, row.quantization) for row in rows if row.path and not row.lora}
    return (offer.backend, offer.quantization) in here


def _matrix(backends: Sequence[str], offers: Sequence[Offer], rows: Sequence[InventoryRow]) -> Table:
    """A row per quantisation: the size of each backend's file, and whether the missing ones fit on the disk."""
    table = Table("on the hub", *backends, "", box=None, pad_edge=False)
    free = free_bytes(hub_cache())
    for quantization, of in inventory.by_quantization(offers).items():
        missing = [offer for offer in of.values() if not _is_here(offer, rows)]
        note = "here" if not missing else "" if sum(offer.bytes for offer in missing) <= free else "no room"
        table.add_row(quantization, *(amount(of[name].bytes) if name in of else "-" for name in backends), note)
    return table
