"""The command `trillama compare`: its arguments, and its findings for people or as JSON."""

import asyncio
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from launcher.engine import cpu_fallback, devices, discovery
from launcher.engine.discovery import Engine
from launcher.errors import ArgumentError, ModelError
from launcher.measure import compare as comparing
from launcher.measure import sample_texts, similarity
from launcher.measure.sample_texts import SampleTexts
from launcher.measure.similarity import Comparison, RankOverlap, Thresholds
from launcher.models import sources
from launcher.printable import json_line, stderr, stdout
from launcher.settings.config import HostConfig, Settings, load
from launcher.settings.folders import runtime_base
from launcher.settings.models import ModelSettings
from launcher.supervision.standalone import Standalone
from launcher.terminal.options import ConfigFile
from launcher.terminal.progress import Display
from launcher.terminal.signals import until_signal

COMPARE_EPILOG = """
Exit codes: 0 go; 1 no-go; 2 wrong arguments; 65 the texts cannot be used; 66 a model file is missing or wrong;
69 no usable llama-server; 70 the engine ended or gave wrong vectors; 75 it did not start; 78 wrong configuration;
130 stopped before it was done.
"""


MODEL = "A .gguf file, or a quantisation of the family, e.g. Q8_0."
# 0.98 is what the golden check requires after a restart. Random rotations of that size move two of ten documents out of
# the top ten among sixty unrelated ones, hence 0.8. A single text below 0.9 is a fault with one script or token, which
# the mean of many texts hides.
MEAN, WORST, OVERLAP = 0.98, 0.90, 0.80

compare_app = typer.Typer()


@compare_app.command("compare", epilog=COMPARE_EPILOG)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=f"The present model. {MODEL}")],
    b: Annotated[str, typer.Argument(metavar="B", help=f"Its replacement. {MODEL}")],
    texts: Annotated[Path | None, typer.Argument(metavar="CORPUS", help="A text per line [default: built in].")] = None,
    backend: Annotated[str | None, typer.Option(help="Which model of the family [default: the first].")] = None,
    config: ConfigFile = None,
    min_cosine: Annotated[float, typer.Option(help="Least mean cosine for a 'go'.")] = MEAN,
    min_worst: Annotated[float, typer.Option(help="Least cosine of the worst text.")] = WORST,
    min_overlap: Annotated[float, typer.Option(help="Least mean share of the top ten in common.")] = OVERLAP,
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Decide whether model file B can replace A. Go or no-go, by how far vectors and rankings drift."""
    settings = load(config)
    backend = backend or next(iter(settings.family.weights.models))
    if backend not in settings.family.weights.models:
        raise ArgumentError(
            f"--backend {backend}: no such model; there are {', '.join(settings.family.weights.models)}"
        )
    given = sample_texts.read_sample_texts(texts) if texts else sample_texts.built_in()
    done = asyncio.run(until_signal(_run(settings, backend, (a, b), given)))
    if done is None:
        raise typer.Exit(130)
    files, found = done
    faults = similarity.faults(found, Thresholds(min_cosine=min_cosine, min_worst=min_worst, min_overlap=min_overlap))
    if json:
        _print_json(files, given, found, faults)
    else:
        _print(files, given, found, faults)
    if faults:
        raise typer.Exit(1)


async def _run(
    settings: Settings, backend: str, names: tuple[str, str], given: SampleTexts
) -> tuple[dict[str, Path], Comparison]:
    """The two files and their comparison."""
    display = Display(stderr)
    with display.live():
        a, b = [await _file(settings, backend, name, display) for name in names]
        sources.check_loras(settings.family, settings.host.models, (backend,))
        loras = [lora for lora in sources.lora_files(settings.family, settings.host.models) if lora.backend == backend]
        lora = await sources.locate_intact(loras[0], report=display.downloading) if loras else None
    comparing.check_pair(a, b, settings.family.weights)
    files = {"A": a, "B": b}
    texts = comparing.as_trained(given, settings.family, backend)
    most = comparing.batch_tokens(texts, settings.max_input_tokens)
    found = await discovery.find_engine(settings.host.engine.llama_server)
    if settings.host.engine.gpu_layers:
        settings = cpu_fallback.adapt_gpu_layers(settings, await devices.read_devices(found))
    run = replace(_standalone(settings.host, most, found), rules=settings.family.weights, lora=lora)
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        lines: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in lines:
                if not stderr.is_terminal:
                    stderr.print(f"{name}: {total} texts", highlight=False)
                lines[name] = progress.add_task(f"{name}: {files[name].name}", total=total)
            progress.update(lines[name], completed=done)

        return files, await comparing.compare_models(run, files, texts, report)


def _standalone(host: HostConfig, batch_tokens: int, found: Engine) -> Standalone:
    return Standalone(
        log="compare.log",
        engine=found,
        policy=host.supervision,
        runtime=host.runtime_dir or runtime_base(),
        slots=host.engine.slots,
        batch_tokens=batch_tokens,
        gpu_layers=host.engine.gpu_layers,
        threads=host.engine.threads,
    )


async def _file(settings: Settings, backend: str, name: str, display: Display) -> Path:
    """The file that `name` means; a quantisation is downloaded if it is not here."""
    family = settings.family
    if name.endswith(".gguf") or Path(name).is_file():
        return Path(name)
    name = family.weights.named(name)
    if name not in family.weights.quantizations:
        offered = ", ".join(family.weights.quantizations)
        raise ModelError(f"{name}: no such file, and {family.name} is offered as {offered}")
    (wanted,) = [one for one in sources.model_files(family, ModelSettings(quantization=name)) if one.backend == backend]
    return await sources.locate_intact(wanted, report=lambda _, done, total: display.downloading(name, done, total))


def _print_json(files: dict[str, Path], given: SampleTexts, found: Comparison, faults: tuple[str, ...]) -> None:
    facts = {
        "go": not faults,
        "faults": faults,
        "files": {name: str(path) for name, path in files.items()},
        "corpus": {"name": given.name, "queries": len(given.queries), "documents": len(given.documents)},
        **asdict(found),
        "worst_text": _worst(given, found),
    }
    sys.stdout.buffer.write(json_line(facts))


def _print(files: dict[str, Path], given: SampleTexts, found: Comparison, faults: tuple[str, ...]) -> None:
    drift = found.drift
    for name, path in files.items():
        stdout.say(f"{name}  {path}")
    stdout.say(f"{len(given.queries)} queries, {len(given.documents)} documents ({given.name})")
    cosines = f"mean {drift.mean:.4f}, median {drift.median:.4f}, least {drift.min:.4f}"
    stdout.say(f"cosine of a text's two vectors: {cosines}")
    stdout.say(f"  the least is of {_worst(given, found)}")
    stdout.say(f"rankings, each model its own:   {_in_words(found.own)}")
    stdout.say(f"B's queries on A's documents:   {_in_words(found.mixed)}")
    for fault in faults:
        stdout.say(f"  {fault}")
    stdout.say("no-go: embed everything again with B, or keep A" if faults else "go: B can replace A")


def _in_words(ranking: RankOverlap) -> str:
    return (
        f"Spearman {ranking.spearman_mean:.4f} (least {ranking.spearman_min:.4f}), first the same {ranking.top1:.0%}, "
        f"top {ranking.k} in common {ranking.top:.0%}"
    )


def _worst(given: SampleTexts, found: Comparison) -> str:
    text = (*given.queries, *given.documents)[found.drift.worst]
    words = " ".join(text.text.split())
    return f"{text.name}: {words if len(words) <= 60 else words[:59] + '…'}"
