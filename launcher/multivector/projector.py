"""The multi-vector projector: a few tensors of the original model, merged per task and stored in one small file.

The original projects each token's state to a few dimensions by a linear layer with a LoRA per task, which no GGUF has.
Of the gigabytes in the hub's repository about two megabytes are read: see `launcher.multivector.byte_ranges`.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ValidationError

from launcher.arrays import F32
from launcher.conversion import safetensors
from launcher.conversion.safetensors import Tensor
from launcher.errors import ConfigError, ModelError, NotWritten
from launcher.host.disk import amount, free_bytes
from launcher.hub.client import RemoteFile
from launcher.multivector import byte_ranges, lora
from launcher.multivector.byte_ranges import RangedFile
from launcher.settings.family import FamilyFile, MultiVectorSource
from launcher.settings.folders import cache_dir

MAX_JSON_BYTES = 16 * 2**20  # of an index or a configuration; those of real models have tens of kilobytes


@dataclass(frozen=True, slots=True)
class Projector:
    """The file's content, in float32: per backend a matrix (dimensions, width), a bias (dimensions,), their origin."""

    weights: Mapping[str, F32]
    bias: F32
    about: Mapping[str, object]


class _Index(BaseModel):
    weight_map: dict[str, str]


@dataclass(slots=True)
class _Source:
    """The repository at the one commit from which everything is read, and a record of what was read."""

    repo: str
    commit: str | None = None
    files: dict[str, tuple[RemoteFile, dict[str, Tensor]]] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)  # a tensor's name -> the SHA-256 of its bytes

    def read_file(self, name: str) -> bytes:
        """All of a small file."""
        file = byte_ranges.find_remote(self.repo, name, commit=self.commit)
        self.commit = file.commit
        if file.size > MAX_JSON_BYTES:
            raise ModelError(
                f"{file} has {file.size} bytes, which is too large for what it should be: correct the family file"
            )
        self.files[name] = file, {}
        return byte_ranges.read_range(file, 0, file.size)

    def tensor(self, name: str, filename: str) -> F32:
        if filename not in self.files:
            file = byte_ranges.find_remote(self.repo, filename, commit=self.commit)
            self.files[filename] = file, safetensors.tensors(RangedFile(file))
        file, tensors = self.files[filename]
        if name not in tensors:
            raise ModelError(f"{file} has no tensor {name}: correct its name in [multivector] of the family file")
        values, content = safetensors.array(RangedFile(file), tensors[name])
        self.read[name] = hashlib.sha256(content).hexdigest()
        return values


def projector_path(family: FamilyFile) -> Path:
    """The file of the family's projector."""
    return cache_dir() / "multivector" / f"{family.name}.npz"


def cached_projector(family: FamilyFile) -> Path | None:
    """The file of the family's projector, if it exists and is complete."""
    path, layout = projector_path(family), _layout(family)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            shapes = {file[f"weight.{backend}"].shape for backend in family.weights.models}
            complete = shapes == {(layout.dimensions, family.dimensions)} and file["bias"].shape == (layout.dimensions,)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return path if complete else None


def fetch_projector(family: FamilyFile) -> Projector:
    """The projector, merged for each backend of the family. Blocks. Raises ModelError, ConfigError."""
    layout = _layout(family)
    source = _Source(layout.repo)
    shard_of = _weight_map(source, layout)
    weight = source.tensor(layout.weight, _shard(shard_of, layout.weight, layout))
    bias = source.tensor(layout.bias, _shard(shard_of, layout.bias, layout))
    _check_shape(layout.weight, weight, (layout.dimensions, family.dimensions))
    _check_shape(layout.bias, bias, (layout.dimensions,))
    config = lora.config_of(source.read_file(layout.adapter_config), f"{layout.adapter_config} of {layout.repo}")
    weights = {
        backend: lora.merged(
            weight,
            source.tensor(layout.lora_a.format(backend=backend), layout.adapter),
            source.tensor(layout.lora_b.format(backend=backend), layout.adapter),
            config,
            f"the adapter of {backend} in {layout.adapter} of {layout.repo}",
        )
        for backend in family.weights.models
    }
    if not all(np.isfinite(values).all() for values in (bias, *weights.values())):
        raise ModelError(f"{layout.repo}: the projector has values that are not finite: start again")
    return Projector(weights, bias, _about(family, source, config.scale))


def save_projector(projector: Projector, path: Path) -> None:
    """Write it atomically. Raises NotWritten."""
    try:
        _write(projector, path)
    except OSError as error:
        free = amount(free_bytes(path.parent))
        raise NotWritten(
            f"{path} cannot be written ({error.strerror}): about 2 MB are needed, {free} are free; make room, or set "
            "TRILLAMA_CACHE to another folder"
        ) from error


def _write(projector: Projector, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    matrices = {f"weight.{backend}": values for backend, values in projector.weights.items()}
    about = np.array(json.dumps(projector.about, sort_keys=True))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, allow_pickle=False, bias=projector.bias, about=about, **matrices)
        Path(name).chmod(0o644)  # the service may run as another user than the one who pulled it
        Path(name).replace(path)
    except BaseException:  # also when cancelled
        Path(name).unlink(missing_ok=True)
        raise


def _layout(family: FamilyFile) -> MultiVectorSource:
    if family.multivector is None:
        raise ConfigError(f"{family.name} has no multi-vectors: its family file has no [multivector] table")
    return family.multivector


def _weight_map(source: _Source, layout: MultiVectorSource) -> Mapping[str, str]:
    try:
        return _Index.model_validate_json(source.read_file(layout.index)).weight_map
    except ValidationError as error:
        raise ModelError(
            f"{layout.index} of {layout.repo} is not an index of shards: correct the family file"
        ) from error


def _shard(shard_of: Mapping[str, str], name: str, layout: MultiVectorSource) -> str:
    if name not in shard_of:
        raise ModelError(f"{layout.index} of {layout.repo} has no tensor {name}: correct its name in the family file")
    return shard_of[name]


def _check_shape(name: str, values: F32, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ModelError(f"{name} has the shape {values.shape}, the family {shape}: correct the family file")


def _about(family: FamilyFile, source: _Source, scale: float) -> dict[str, object]:
    return {
        "family": family.name,
        "licence": family.licence,
        "repo": source.repo,
        "commit": source.commit,
        "lora_scale": scale,
        "files": {name: {"bytes": file.size, "etag": file.checksum} for name, (file, _) in source.files.items()},
        "tensors_sha256": source.read,
    }
