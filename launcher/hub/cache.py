"""The family's files in the hub's cache on this machine: lists, verifies and removes them.

The cache names each file's content by the hub's own checksum, so a file can be verified without a network.
"""

import fcntl
import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from huggingface_hub import CachedFileInfo, CacheNotFound, HFCacheInfo, scan_cache_dir

from launcher.errors import ModelError, NotWritten
from launcher.host import processes
from launcher.hub.cache_entry import INCOMPLETE, blobs_of, find_cached, folder_of, sha256_in_name
from launcher.settings.family import FamilyFile, HubFile
from launcher.settings.folders import hub_cache

MMPROJ = "mmproj"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFile:
    """A complete file in the cache. `sha256` is the one it was stored with, None if the cache does not know it.

    `current`: whether a start would use it; a file of an older revision of its repository only takes space.
    `entry`: its place in the hub's cache; None for a file that was made here. `lora`: it is the backend's LoRA. The
    vision encoder, which all backends share, has MMPROJ in place of a backend.
    """

    backend: str
    quantization: str
    bytes: int
    sha256: str | None
    current: bool
    path: Path
    entry: CachedFileInfo | None
    lora: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedDownload:
    """A partial download. The cache does not say of which quantisation."""

    backend: str
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The result of `remove`; content shared with another revision of the repository is not freed."""

    freed_bytes: int
    busy: tuple[StoppedDownload, ...]  # in use by another process's download, not removed


def quantization_in(pattern: str, filename: str) -> str | None:
    """The quantisation in a file's name, by the family's `file` pattern; None if the name does not match.

    Empty for a pattern that is a name.
    """
    if filename == pattern:
        return ""
    before, _, after = pattern.partition("{quantization}")
    found = re.fullmatch(f"{re.escape(before)}([A-Za-z0-9_]+){re.escape(after)}", filename)
    return found[1] if found else None


def cached_files(family: FamilyFile) -> tuple[CachedFile, ...]:
    """Every file of the family in the cache, by backend, largest first, then the backend's LoRAs; last the encoder."""
    cache, weights = _scanned(), family.weights
    only = weights.quantizations[0]  # where the pattern is a name, there is one
    models = [replace(one, quantization=one.quantization or only) for one in _found(weights.on_hub, cache)]
    loras = [replace(one, lora=True) for one in _found(weights.loras_on_hub, cache)]
    encoders = _found({MMPROJ: weights.mmproj_on_hub} if weights.mmproj_on_hub else {}, cache)
    backends = tuple(weights.models)
    ordered = sorted([*models, *loras], key=lambda one: (backends.index(one.backend), one.lora, -one.bytes))
    return *ordered, *encoders


def stopped_downloads(family: FamilyFile) -> tuple[StoppedDownload, ...]:
    """Every partial download of the family, stopped or still running in another process."""
    return tuple(
        StoppedDownload(backend=backend, path=path, bytes=path.stat().st_size)
        for backend, repo in dict.fromkeys(_repos(family))
        for path in sorted(blobs_of(repo).glob(f"*{INCOMPLETE}"))
    )


def describe_damage(family: FamilyFile) -> tuple[str, ...]:
    """A sentence for each repository of the family that `cached_files` skips because its cache is damaged."""
    sentences = list[str]()
    warnings = [str(warning) for warning in _scanned().warnings]
    for repo in dict.fromkeys(repo for _, repo in _repos(family)):
        folder = folder_of(repo)
        dangling = [path for path in sorted(folder.glob("snapshots/*/*")) if path.is_symlink() and not path.exists()]
        sentences += [
            f"the content of {link} is gone, and the repository's other files are ignored: "
            f"`rm {shlex.quote(str(link))}`, then pull what you need"
            for link in dangling
        ]
        if not dangling and any(str(folder) in warning for warning in warnings):
            sentences.append(f"{folder} is damaged and ignored: pull what you need again")
    return tuple(sentences)


def bytes_present(source: HubFile, sha256: str | None) -> int:
    """The bytes of the content with that checksum that are already here, complete or partial."""
    blobs = blobs_of(source.repo)
    found = [path for path in (blobs / f"{sha256}", blobs / f"{sha256}{INCOMPLETE}") if sha256 and path.exists()]
    return max((path.stat().st_size for path in found), default=0)


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file, in hex. Raises ModelError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error


def pids_using(path: Path) -> tuple[int, ...]:
    """The processes whose command line names this file: llama-servers that serve it, ours or not."""
    target = path.resolve()
    return tuple(process.pid for process in processes.running_processes() if target in _paths_on_command_line(process))


def remove_cached(files: Sequence[CachedFile], stopped: Sequence[StoppedDownload]) -> Removed:
    """Delete them from the cache, except a download that another process is running.

    Raises ModelError, before anything is deleted, for a file that a process serves; NotWritten for files that remain.
    """
    for file in files:
        if pids := pids_using(file.path):
            raise ModelError(f"{file.path.name} is served by process {pids[0]}: stop it first; nothing was removed")
    plan = _scanned().delete_files(*(file.entry for file in files if file.entry))
    made = [file for file in files if not file.entry]
    try:
        busy = tuple(partial for partial in stopped if not _remove_partial(partial))
        plan.execute()
        for file in made:
            file.path.resolve().unlink(missing_ok=True)
            file.path.unlink()
    except OSError as error:
        raise NotWritten(f"{hub_cache()}: not everything could be removed: {error.strerror}") from error
    if remaining := [path for path in (*plan.files, *plan.blobs) if path.exists()]:  # it only logs failures
        raise NotWritten(f"{remaining[0]} could not be removed: check the permissions of its folder")
    freed = (
        plan.expected_freed_size
        + sum(file.bytes for file in made)
        + sum(partial.bytes for partial in stopped if partial not in busy)
    )
    return Removed(freed_bytes=freed, busy=busy)


def _scanned() -> HFCacheInfo:
    try:
        return scan_cache_dir(hub_cache())
    except (OSError, ValueError) as error:  # an unreadable folder, a file in its place, a ref that is not text
        raise ModelError(f"the cache {hub_cache()} cannot be read ({error}): repair it or set HF_HOME") from error
    except CacheNotFound:  # nothing was downloaded yet
        return HFCacheInfo(size_on_disk=0, repos=frozenset(), incomplete_files=frozenset(), warnings=[])


def _repos(family: FamilyFile) -> Iterator[tuple[str, str]]:
    """Each backend with the repository of its model, then each with that of its LoRA."""
    for places in (family.weights.on_hub, family.weights.loras_on_hub):
        yield from ((backend, place.repo) for backend, place in places.items())


def _found(places: Mapping[str, HubFile], cache: HFCacheInfo) -> list[CachedFile]:
    return [one for backend, source in places.items() for one in _of(backend, source, cache)]


def _of(backend: str, source: HubFile, cache: HFCacheInfo) -> Iterator[CachedFile]:
    entries = [
        entry
        for repo in cache.repos
        if (repo.repo_id, repo.repo_type) == (source.repo, "model")
        for revision in repo.revisions
        for entry in revision.files
    ]
    for entry in entries:
        quantization = quantization_in(source.file, entry.file_name)
        if quantization is not None:
            yield CachedFile(
                backend=backend,
                quantization=quantization,
                bytes=entry.size_on_disk,
                sha256=sha256_in_name(entry.blob_path),
                current=find_cached(source.repo, entry.file_name) == entry.file_path,
                path=entry.file_path,
                entry=entry,
            )


def _remove_partial(partial: StoppedDownload) -> bool:
    """Whether it was removed; one that another process has locked stays."""
    with suppress(FileNotFoundError), partial.path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        partial.path.unlink()
    return True


def _paths_on_command_line(process: psutil.Process) -> set[Path]:
    """The paths on a process's command line; another user's process may hide them."""
    with suppress(psutil.Error, OSError):
        return {Path(word).resolve() for word in process.cmdline() if os.sep in word and len(word) < 4096}
    return set()
