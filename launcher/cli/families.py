"""`trillama families`: the families that are shipped, and what is wrong with a family file."""

import asyncio
import difflib
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from gguf import MODEL_ARCH_NAMES

from launcher.cli.plan import longest_fit
from launcher.engine import devices as gpu
from launcher.engine import discovery
from launcher.engine.cpu_fallback import adapt_gpu_layers
from launcher.engine.devices import Devices
from launcher.errors import ArgumentError, ConfigError, EngineError, ModelError, StartError
from launcher.host.disk import amount
from launcher.models import header_check, sources
from launcher.planning.candidates import PlanRequest
from launcher.planning.memory import ENCODERS
from launcher.planning.request import request_of
from launcher.planning.sizing import fix_length, room_of
from launcher.printable import json_line, stderr, stdout
from launcher.settings.config import Settings, load, read_file, shipped_families
from launcher.settings.family import FamilyFile
from launcher.settings.file_kind import FileKind, mistaken_file
from launcher.settings.setting_lines import line_of
from proxy.contract.gguf import Header
from proxy.contract.settings_file import settings_faults

FAMILIES_EPILOG = """
Exit codes: 0 done, or nothing is wrong; 2 wrong arguments; 66 the model file is missing, damaged or of another model;
78 the family file is wrong.
"""

TASKS_WIDTH = 76  # of a terminal of 80 columns, indented

families_app = typer.Typer(
    help="The families of models that can be served.", invoke_without_command=True, epilog=FAMILIES_EPILOG
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """A row of the list. `bytes` is the size of all models together, None if unknown."""

    family: str
    tasks: tuple[str, ...]
    dimensions: int
    licence: str
    models: int
    quantization: str
    bytes: int | None
    fits: str


@families_app.callback(epilog=FAMILIES_EPILOG)
def list_families(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON array.")] = False,
) -> None:
    """List the shipped families: tasks, dimensions, licence, size, and what fits into this machine's free memory."""
    if context.invoked_subcommand:
        return
    machine = _machine()
    rows = [_row(load(None, {"family": name}), machine) for name in shipped_families()]
    if json:
        sys.stdout.buffer.write(json_line([asdict(row) for row in rows]))
        return
    for row in rows:
        stdout.say(_described_row(row))
    stdout.say("sizes of files that are not downloaded are computed from the number of weights")
    stdout.say('to serve one: family = "NAME" in the file that `trillama serve --config` reads')


@families_app.command("check", epilog=FAMILIES_EPILOG)
def check(
    file: Annotated[Path, typer.Argument(help="The family file.")],
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="A .gguf file to compare it with.")] = None,
) -> None:
    """Say what is wrong with a family file. Each fault with its line, and whether a model file is of that family."""
    if file.suffix == ".gguf":
        raise ArgumentError(f"{file} is a model file: name the family file first, and the model after it")
    given = read_file(file)
    if faults := settings_faults(FamilyFile, given) or tuple(_implausible(FamilyFile.model_validate(given))):
        text = file.read_text(encoding="utf-8-sig")
        if mistaken := mistaken_file(given, file, FileKind.FAMILY):
            raise ConfigError(mistaken)
        for line, fault in sorted((line_of(text, fault) or 0, fault) for fault in faults):
            stdout.say(f"fail  {file}{f':{line}' if line else ''}: {fault}")
        raise typer.Exit(ConfigError.exit_code)
    family = FamilyFile.model_validate(given)
    stdout.say(f"ok    {file}: {', '.join(_described(family))}")
    if doubt := _unknown_architecture(family.weights.architecture):
        stdout.say(f"note  {file}:{line_of(file.read_text(encoding='utf-8-sig'), doubt)}: {doubt}")
    if model:
        _check_model(model, family)


def _check_model(path: Path, family: FamilyFile) -> None:
    try:
        header = sources.check_complete(path)
    except ModelError as error:
        stdout.say(f"fail  {error}")
        raise typer.Exit(error.exit_code) from error
    faults = header_check.contradictions(header, family)
    for fault in faults:
        stdout.say(f"fail  {path}: {fault}")
    if faults:
        raise typer.Exit(ModelError.exit_code)
    stdout.say(f"ok    {path}: {', '.join(_of_file(header, family))}")
    if note := header_check.unstated_pooling(header, family.weights):
        stdout.say(f"note  {path}: {note}")


def _implausible(family: FamilyFile) -> Iterator[str]:
    """The faults of a valid file that describes no possible model."""
    weights = family.weights
    if weights.architecture in ENCODERS and weights.causal:
        yield f"weights.causal: {weights.architecture} sees a whole text at once: write causal = false"
    if family.dimensions not in family.trained_dimensions:
        yield f"trained_dimensions: the whole size, {family.dimensions}, is missing"
    if list(family.trained_dimensions) != sorted(set(family.trained_dimensions)):
        yield "trained_dimensions: name each size once, the smallest first"
    for name in weights.models.keys() - {row.backend for row in family.tasks.values()}:
        yield f"weights.models.{name}: no task uses it"


def _unknown_architecture(name: str) -> str | None:
    """A doubt about an architecture that llama.cpp did not have when this trillama was made; None for any other."""
    known = MODEL_ARCH_NAMES.values()
    if name in known:
        return None
    near = difflib.get_close_matches(name, known, n=1)
    return f"weights.architecture: {name} is not known here{f'; did you mean {near[0]}?' if near else ''}"


def _described(family: FamilyFile) -> Iterator[str]:
    """The family in a few words."""
    weights = family.weights
    yield family.name
    models = "1 model" if len(weights.models) == 1 else f"{len(weights.models)} models"
    yield f"{len(family.tasks)} tasks on {models}"
    yield f"{family.dimensions} dimensions"
    yield f"{weights.architecture}, pooled by {weights.pooling}"


def _of_file(header: Header, family: FamilyFile) -> Iterator[str]:
    """The model file in a few words."""
    yield f"a model of {family.name}"
    if longest := header_check.longest_text(header, family.weights):
        yield f"texts of up to {longest} tokens"
    yield amount(header.file_bytes)


def _machine() -> tuple[frozenset[str], Devices] | None:
    """The engine's flags and this machine's devices; None without an engine."""
    try:
        found = asyncio.run(discovery.find_engine(load(None).host.engine.llama_server))
        return found.flags, asyncio.run(gpu.read_devices(found))
    except (EngineError, StartError) as error:
        stderr.say(f"what fits is not known: {error}")
        return None


def _row(settings: Settings, machine: tuple[frozenset[str], Devices] | None) -> FamilyRow:
    flags, devices = machine or (frozenset[str](), gpu.without_gpus())
    settings = adapt_gpu_layers(settings, devices)
    family = settings.family
    request = request_of(settings, flags, tuple(family.weights.models))
    return FamilyRow(
        family=family.name,
        tasks=tuple(family.tasks),
        dimensions=family.dimensions,
        licence=family.licence,
        models=len(family.weights.models),
        quantization=family.weights.quantization,
        bytes=_bytes(family, request),
        fits=longest_fit(fix_length(request, devices, None), room_of(devices)) if request and machine else "not known",
    )


def _bytes(family: FamilyFile, request: PlanRequest | None) -> int | None:
    if request:
        return sum(of[family.weights.quantization].file_bytes for of in request.weights.values())
    packages = [source.package.bytes for source in family.weights.models.values() if source.package]
    return sum(packages) or None


def _described_row(row: FamilyRow) -> str:
    """What one chooses by, and the tasks, none of which is broken at a line's end."""
    size = f"{row.models} x {row.quantization}" if row.models > 1 else row.quantization
    size += f" {amount(row.bytes)}" if row.bytes else ""
    facts = (f"{row.dimensions} dimensions", size, row.licence, f"fits here: {row.fits}")
    tasks = textwrap.fill(", ".join(row.tasks), TASKS_WIDTH, break_on_hyphens=False)
    return f"{row.family}: {', '.join(facts)}\n{textwrap.indent(tasks, '    ')}"
