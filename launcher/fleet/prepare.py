"""From settings to a deployment: find the engine, fetch the models, check everything before a process starts."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher.engine import argv, cpu_fallback, discovery, profile
from launcher.engine import devices as gpu
from launcher.errors import ModelError
from launcher.images import requirements
from launcher.models import header_check, mmproj, sources
from launcher.models.demo import demo_models
from launcher.planning import sizing
from launcher.settings.config import Settings
from launcher.settings.family import Weights
from launcher.settings.folders import LOGS, cache_dir, make_folder
from launcher.supervision.deployment import Deployment
from launcher.terminal.progress import Display
from proxy.contract.gguf import Header


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
    asked_port, settings = settings.host.port, settings.with_host(host=address, port=port)
    names = only or tuple(settings.family.weights.models)
    found = await _engine(settings)
    devices = await _devices(settings, found)
    settings = cpu_fallback.adapt_gpu_layers(settings, devices)
    decision = sizing.decide(settings, found, devices, names, ours=ours)
    for note in (*decision.notes, *sizing.save_choices(settings, decision)):
        display.say(note)
    served = await files(decision.settings, names, display)
    bounded = _bounded(settings, decision.settings, served, display)
    requirements.check_length(bounded)
    return Deployment(
        settings=profile.apply_saved(bounded, found, devices, served.models, display.say),
        listener=listener,
        engine=found,
        models=served.models,
        loras=served.loras,
        mmproj=served.mmproj,
        placements=decision.placements,
        capacity=decision.capacity,
        devices=devices,
        logs=make_folder(LOGS),
        asked_port=asked_port,
    )


async def _engine(settings: Settings) -> discovery.Engine:
    """The engine, which knows the flags of the configuration."""
    found = await discovery.find_engine(settings.host.engine.llama_server)
    argv.check_extra(settings.host.engine.extra_flags, found.flags)
    requirements.check_images(settings, found)
    return found


async def _devices(settings: Settings, found: discovery.Engine) -> gpu.Devices:
    """The engine's devices, which are those that the configuration requires."""
    wanted = settings.host.engine
    devices = await gpu.read_devices(found) if wanted.gpu_layers or wanted.require_gpu is True else gpu.without_gpus()
    cpu_fallback.check_devices(wanted, devices, found)
    return devices


def _bounded(asked: Settings, planned: Settings, served: "ServedFiles", display: Display) -> Settings:
    """The planned settings with a longest text that every file takes; says so if it is shorter than asked for."""
    longest = served.longest(asked.family.weights)
    bounded = header_check.bounded(planned, longest, asked.host.max_input_tokens)
    if bounded.max_input_tokens < asked.max_input_tokens and bounded.max_input_tokens in longest:
        display.say(f"the longest text is {bounded.max_input_tokens} tokens: the model's file takes no longer ones")
    return bounded


async def available_settings(settings: Settings, display: Display) -> Settings:
    """The settings, or their fallback if they have one and a model of theirs cannot be fetched; says which and why."""
    if settings.fallback is None:
        return settings
    try:
        for wanted in sources.model_files(settings.family, settings.host.models):
            await sources.locate(wanted, report=display.downloading)
    except ModelError as error:
        display.say(f"{settings.family.name} cannot be fetched, so made-up models are served instead: {error}")
        return settings.fallback
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFiles:
    """The checked files of the backends, by their names. Demo models have no `headers`: they are made to fit.

    `mmproj` is the vision encoder of all backends, if they take images.
    """

    models: Mapping[str, Path]
    loras: Mapping[str, Path] = field(default_factory=dict)
    mmproj: Path | None = None
    headers: Mapping[str, Header] = field(default_factory=dict)

    def longest(self, weights: Weights) -> list[int | None]:
        """The longest text that each file takes, if its header says it."""
        return [header_check.longest_text(header, weights) for header in self.headers.values()]


async def files(settings: Settings, names: Sequence[str], display: Display) -> ServedFiles:
    """Each backend's model file and LoRA, downloaded, and checked against the family. Raises ModelError."""
    if settings.host.demo:
        made = await asyncio.to_thread(demo_models, cache_dir() / "demo")
        return ServedFiles(models={name: made[name] for name in names})
    family, paths, loras = settings.family, dict[str, Path](), dict[str, Path]()
    sources.check_loras(family, settings.host.models, names)
    for wanted in sources.model_files(family, settings.host.models):
        if wanted.backend in names:
            paths[wanted.backend] = await sources.locate_intact(wanted, report=display.downloading)
    for wanted in sources.lora_files(family, settings.host.models):
        if wanted.backend in names:
            loras[wanted.backend] = lora = await sources.locate_intact(wanted, report=display.downloading)
            header_check.check_lora(lora, family)
    headers = {name: header_check.check_model(path, family) for name, path in paths.items()}
    encoder = await _encoder(settings, display)
    for note in dict.fromkeys(header_check.unstated_pooling(header, family.weights) for header in headers.values()):
        if note:
            display.say(note)
    return ServedFiles(models=paths, loras=loras, mmproj=encoder, headers=headers)


async def _encoder(settings: Settings, display: Display) -> Path | None:
    """The vision encoder, downloaded, and checked against the family; None if images are off. Raises ModelError."""
    wanted = mmproj.mmproj_file(settings.family, settings.host.models)
    if wanted is None:
        return None
    path = await sources.locate_intact(wanted, report=display.downloading)
    if doubt := mmproj.doubt(mmproj.check_mmproj(path, settings.family)):
        display.say(doubt)
    return path
