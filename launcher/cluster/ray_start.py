"""Ray's command line and environment, and the secret that lets a host join."""

import importlib.util
import json
import os
import secrets
import socket
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from launcher.cluster.settings import RAY_PORTS
from launcher.errors import ConfigError, LauncherError
from launcher.settings.folders import runtime_base, state_dir

NODE_RESOURCE, HEAD_RESOURCE = "trillama_node", "trillama_head"
TOKEN_NAME = "cluster-token"  # noqa: S105 # the file's name
NODE_VARIABLE = "TRILLAMA_CLUSTER_NODE"  # how this host starts its node: written by `join`, read in Ray's processes
INSTALL = "pip install 'trillama[cluster]'  (in a checkout: make .venv-cluster/installed)"
RECONNECT_S = 3600  # how long hosts keep their nodes running while the head is away
_FIRST_OF_STARTS, _STARTS, _START_S = 9, 18, 2.0  # of the ports below: one for each start, by the time in seconds
_FIRST_WORKER = 28  # of the ports below


class RayParameters(Protocol):
    """What is used of Ray's own parameters."""

    ray_client_server_port: int | None


class NodeCommand(BaseModel, frozen=True):
    """How a host starts its node: `trillama serve` on the address `host`, to which `--ready-file` is added."""

    host: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RayPlace:
    """Where one host's Ray runs: its address, the first of its ports, its folder, and whether a node runs beside it."""

    address: str
    first_port: int
    folder: Path
    object_store_bytes: int
    node: bool


class RayAccess(BaseModel, frozen=True):
    """How a program on the head's host reaches Ray: its address, and the file of the token."""

    address: str
    token: Path


def check_installed() -> None:
    """Raise LauncherError, with the command that helps, unless Ray is installed."""
    if sys.platform != "linux":
        raise LauncherError("a cluster needs Linux: Ray supports several hosts there alone")
    if importlib.util.find_spec("ray") is None:
        raise LauncherError(f"`trillama cluster` needs Ray, which is not installed: {INSTALL}")


def ports(first: int, start_at: float) -> dict[str, int]:
    """The port of each of Ray's listeners, by its option of `ray start`. All are below `first` + RAY_PORTS.

    Each start has another node manager's port than the starts of the last 36 s. Ray's head counts a killed host as
    alive for up to 20 s, and tells it to end processes that it does not know; the port alone decides who is told.
    `start_at` is the time of the start in seconds.
    """
    return {
        "--object-manager-port": first + 1,
        "--node-manager-port": first + _FIRST_OF_STARTS + int(start_at / _START_S) % _STARTS,
        "--metrics-export-port": first + 3,
        "--runtime-env-agent-port": first + 4,
        "--dashboard-agent-listen-port": first + 5,
        "--dashboard-agent-grpc-port": first + 6,
        "--min-worker-port": first + _FIRST_WORKER,
        "--max-worker-port": first + RAY_PORTS - 1,
    }


def head_command(place: RayPlace) -> tuple[str, ...]:
    """Starts Ray's head; runs until it is told to end."""
    # The dashboard's process runs all the same, without its page: Ray needs its other modules.
    head = ("--head", f"--port={place.first_port}", "--include-dashboard=false")
    dashboard = (f"--dashboard-port={place.first_port + 7}", "--no-monitor")
    return (*_command(place, {HEAD_RESOURCE: 1}), *head, *dashboard)


def join_command(place: RayPlace, head: str) -> tuple[str, ...]:
    """Joins Ray's head at `head`, ADDRESS:PORT; runs until it is told to end."""
    return (*_command(place, {}), f"--address={head}")


def _command(place: RayPlace, resources: Mapping[str, int]) -> tuple[str, ...]:
    offered = {**resources, **({NODE_RESOURCE: 1} if place.node else {})}
    return (
        *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
        f"--node-ip-address={place.address}",
        f"--temp-dir={place.folder}",
        f"--object-store-memory={place.object_store_bytes}",
        # Nothing of ours asks for processors, and a node has all GPUs of its host.
        *("--num-cpus=1", "--num-gpus=0", f"--resources={json.dumps(offered)}", "--include-log-monitor=false"),
        *(f"{option}={port}" for option, port in ports(place.first_port, time.time()).items()),
    )


def head_environment(place: RayPlace, storage: Path) -> dict[str, str]:
    """What the head's Ray needs besides: a folder for its state, so that hosts and nodes outlive a restart of it."""
    metrics = {"DASHBOARD_METRIC_PORT": str(place.first_port + 8)}
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(storage), **metrics}


def ray_environment(token: Path, node: NodeCommand | None = None) -> dict[str, str]:
    """What Ray's processes need in their environment; `node` is how this host starts its node."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ROTATION_MAX_BYTES": str(4 * 2**20),
        "RAY_ROTATION_BACKUP_COUNT": "2",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(RECONNECT_S),
        "RAY_START_HOOK": f"{__name__}.{without_client.__name__}",
        **({NODE_VARIABLE: node.model_dump_json()} if node else {}),
    }


def without_client(parameters: RayParameters, _head: bool) -> None:
    """Called by `ray start`: no server for remote clients, which has no option of its own and which nobody needs."""
    parameters.ray_client_server_port = None


def made_token(given: Path | None) -> Path:
    """The file of the head's token, made with mode 0600 if it is missing. Raises ConfigError if others may read it."""
    path = given or _of_systemd() or state_dir() / TOKEN_NAME
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return checked_token(path)


def found_token(given: Path | None) -> Path:
    """The file of the token that a host joins with. Raises ConfigError if it is missing, or others may read it."""
    path = given or _of_systemd() or state_dir() / TOKEN_NAME
    if not path.is_file():
        raise ConfigError(f"{path} is missing: copy it from the head, which prints its path, and chmod 600 it")
    return checked_token(path)


def checked_token(path: Path) -> Path:
    """The path. Raises ConfigError for a token that others may read, or that is empty."""
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(
            f"{path} may be read by others, and whoever has it can run programs on every host: chmod 600 {path}"
        )
    if not path.read_text(encoding="utf-8").strip():
        raise ConfigError(f"{path} is empty: remove it, and the head makes another")
    return path


def own_address(head: str, port: int) -> str:
    """The address of this host that packets to the head leave from. Raises ConfigError if there is no way to it."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(head, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as way:
            way.connect(target)
            return str(way.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"{head} cannot be reached: {error.strerror}; is it the head's name or address?") from error


def ray_folder() -> Path:
    """Where a host's Ray keeps its sockets and logs: private, which Ray's own folder in it is not."""
    private = runtime_base() / "trillama-ray"
    private.mkdir(mode=0o700, exist_ok=True)
    return private / "r"  # short: the paths of Ray's sockets are close to the longest possible


def _of_systemd() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, TOKEN_NAME) if folder else None
    return path if path and path.is_file() else None
