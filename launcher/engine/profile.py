"""What `trillama tune` found for a machine, an engine and a model: kept in the cache folder, used by the next start."""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import tomli_w
from pydantic import ValidationError

from launcher.engine.devices import Devices
from launcher.engine.discovery import Engine
from launcher.host import disk, processor
from launcher.host.cores import usable_cores
from launcher.settings.config import FlashAttention, Settings
from launcher.settings.folders import cache_dir
from proxy.contract.family import Positive, Strict

TUNED = ("slots", "threads", "flash_attention")  # of `[engine]`; what the host's file sets stays


class ProfileOrigin(Strict):
    """What a profile was measured on; it says nothing of another one."""

    machine: str
    engine: str
    model: str
    max_input_tokens: Positive
    gpu_layers: int


class Profile(Strict):
    """A profile's file, whole. `threads` None is the engine's own choice. `tokens_per_s`: of each kind of text."""

    backend: str
    date: str
    origin: ProfileOrigin
    slots: Positive
    threads: Positive | None = None
    flash_attention: FlashAttention
    tokens_per_s: dict[str, float]


def path_of(settings: Settings) -> Path:
    """Where the profile of these settings is kept."""
    name = f"{settings.family.name}{'-demo' if settings.host.demo else ''}.toml"
    return cache_dir() / "tune" / name


def write(profile: Profile, path: Path) -> None:
    """Raises OSError."""
    with disk.whole(path) as unfinished:
        unfinished.write_text(tomli_w.dumps(profile.model_dump(exclude_none=True)), encoding="utf-8")


def tuned(
    settings: Settings, engine: Engine, devices: Devices, models: Mapping[str, Path], say: Callable[[str], None]
) -> Settings:
    """The settings with what was measured for them, where the host's file leaves it open; `say` hears why not."""
    path = path_of(settings)
    try:
        kept = Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError:
        return settings
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError):
        say(f"{path} cannot be read and is left out: run `trillama tune --write`, or delete it")
        return settings
    if kept.backend not in models:
        return settings
    now = origin_of(settings, engine, devices, models[kept.backend])
    if other := [name for name in ProfileOrigin.model_fields if getattr(kept.origin, name) != getattr(now, name)]:
        say(f"what `trillama tune` measured was with another {' and '.join(other)}: it is left out; tune again")
        return settings
    return applied(settings, kept)


def applied(settings: Settings, kept: Profile) -> Settings:
    """The settings with a profile's in place of defaults. Pure."""
    engine = settings.host.engine
    changes = {name: getattr(kept, name) for name in TUNED if name not in engine.model_fields_set}
    return settings.with_host(engine=engine.model_copy(update=changes))


def origin_of(settings: Settings, engine: Engine, devices: Devices, model: Path) -> ProfileOrigin:
    """What these settings are served with now."""
    gpu_layers = settings.host.engine.gpu_layers
    cards = [one.description for one in devices.gpus if gpu_layers]
    return ProfileOrigin(
        machine="; ".join([_processor(), *cards]),
        engine=f"{engine.origin} {engine.version}",
        model=_identity(model),
        max_input_tokens=settings.max_input_tokens,
        gpu_layers=gpu_layers,
    )


def _processor() -> str:
    """By name and by the cores that we may use."""
    return f"{processor.name()}, {usable_cores()} of {os.cpu_count()} cores"


def _identity(model: Path) -> str:
    """The SHA-256 that a blob of the hub's cache has for a name, else name, size and time of change: at once."""
    blob = model.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):
        return f"sha256:{blob}"
    stat = model.stat()
    return f"{model.name} {stat.st_size} {stat.st_mtime_ns}"
