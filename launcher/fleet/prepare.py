"""From settings to a deployment: find the engine, fetch the models, check everything before a process starts."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.engine import argv, cpu_fallback, discovery, profile
from launcher.engine import devices as gpu
from launcher.models import sources
from launcher.models.demo import demo_models
from launcher.planning import sizing
from launcher.settings.config import Settings
from launcher.settings.folders import LOGS, cache_dir, make_folder
from launcher.supervision.deployment import Deployment
from launcher.terminal.progress import Display


async def prepare(
    settings: Settings,
    listener: socket.socket,
    display: Display,
    *,
    only: Sequence[str] | None = None,
    ours: Mapping[str, int] | None = None,
) -> Deployment:
    """Everything that can be known before a process starts: the engine, the plan, each model's file, downloaded.

    `only` limits the models to those backends; `ours` is the bytes by device that models which run already hold.
    Raises EngineError, StartError for a missing GPU, ModelError, NotEnoughMemory, or ConfigError for engine flags that
    users must not set.
    """
    address, port = listener.getsockname()[:2]  # systemd's socket unit may differ from our configuration
    settings = settings.with_host(host=address, port=port)
    names = only or tuple(settings.family.weights.models)
    found = await discovery.find_engine(settings.host.engine.llama_server)
    argv.check_extra(settings.host.engine.extra_flags, found.flags)
    wanted = settings.host.engine
    devices = await gpu.read_devices(found) if wanted.gpu_layers or wanted.require_gpu is True else gpu.without_gpus()
    cpu_fallback.check_devices(wanted, devices, found)
    settings = cpu_fallback.adapt_gpu_layers(settings, devices)
    decision = sizing.decide(settings, found, devices, names, ours=ours)
    for note in (*decision.notes, *sizing.save_choices(settings, decision)):
        display.say(note)
    paths = await files(decision.settings, names, display)
    return Deployment(
        settings=profile.apply_saved(decision.settings, found, devices, paths, display.say),
        listener=listener,
        engine=found,
        models=paths,
        placements=decision.placements,
        capacity=decision.capacity,
        devices=devices,
        logs=make_folder(LOGS),
    )


async def files(settings: Settings, names: Sequence[str], display: Display) -> dict[str, Path]:
    """Each backend's model file, downloaded and checked. Raises ModelError."""
    if settings.host.demo:
        made = await asyncio.to_thread(demo_models, cache_dir() / "demo")
        return {name: made[name] for name in names}
    family = settings.family
    paths = {}
    for wanted in sources.model_files(family, settings.host.models):
        if wanted.backend in names:
            paths[wanted.backend] = path = await sources.locate_intact(wanted, report=display.downloading)
            sources.check_file(path, architecture=family.weights.architecture, dimensions=family.dimensions)
    return paths
