"""What `trillama tune` found for a machine, engine and model: kept in the cache folder, used by the next start."""

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

TUNED = ("slots", "threads", "flash_attention")  # fields of `[engine]`; those that the host's file sets are not changed


class ProfileOrigin(Strict):
    """What a profile was measured on; it is valid for nothing else."""

    machine: str
    engine: str
    model: str
    max_input_tokens: Positive
    gpu_layers: int


class Profile(Strict):
    """A profile's file. `threads` None is the engine's default. `tokens_per_s` by kind of text."""

    backend: str
    date: str
    origin: ProfileOrigin
    slots: Positive
    threads: Positive | None = None
    flash_attention: FlashAttention
    tokens_per_s: dict[str, float]


def profile_path(settings: Settings) -> Path:
    """The file of these settings' profile."""
    name = f"{settings.family.name}{'-demo' if settings.host.demo else ''}.toml"
    return cache_dir() / "tune" / name


def write_profile(profile: Profile, path: Path) -> None:
    """Write it atomically. Raises OSError."""
    with disk.atomic_file(path) as unfinished:
        unfinished.write_text(tomli_w.dumps(profile.model_dump(exclude_none=True)), encoding="utf-8")


def apply_saved(
    settings: Settings, engine: Engine, devices: Devices, models: Mapping[str, Path], say: Callable[[str], None]
) -> Settings:
    """The settings with their profile, for fields that the host's file does not set; `say` gets the reason if not."""
    path = profile_path(settings)
    try:
        profile = Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError:
        return settings
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError):
        say(f"{path} cannot be read and is ignored: run `trillama tune --write`, or delete it")
        return settings
    if profile.backend not in models:
        return settings
    now = origin_of(settings, engine, devices, models[profile.backend])
    if other := [name for name in ProfileOrigin.model_fields if getattr(profile.origin, name) != getattr(now, name)]:
        say(f"`trillama tune` measured another {' and '.join(other)}: its result is ignored; tune again")
        return settings
    return applied(settings, profile)


def applied(settings: Settings, profile: Profile) -> Settings:
    """The settings with a profile's values in place of defaults. Pure."""
    engine = settings.host.engine
    changes = {name: getattr(profile, name) for name in TUNED if name not in engine.model_fields_set}
    return settings.with_host(engine=engine.model_copy(update=changes))


def origin_of(settings: Settings, engine: Engine, devices: Devices, model: Path) -> ProfileOrigin:
    """The machine, engine and model that these settings are served with now."""
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
    """Name, and the cores that we may use."""
    return f"{processor.name()}, {usable_cores()} of {os.cpu_count()} cores"


def _identity(model: Path) -> str:
    """Cheap: the SHA-256 that names a blob of the hub's cache, else name, size and modification time."""
    blob = model.resolve().name
    if re.fullmatch("[0-9a-f]{64}", blob):
        return f"sha256:{blob}"
    stat = model.stat()
    return f"{model.name} {stat.st_size} {stat.st_mtime_ns}"
