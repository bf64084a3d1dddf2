"""All that is decided before a process starts, and what each process is to run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from launcher.canary import Canary, golden_path
from launcher.command import Placement
from launcher.config import HostConfig, Settings, state_dir
from launcher.engine import Engine
from launcher.run import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """`models` has a checked file for each backend to be started; their output is kept in the folder `logs`."""

    settings: Settings
    listener: socket
    engine: Engine
    models: Mapping[str, Path]
    logs: Path

    @property
    def url(self) -> str:
        """Where a client on this machine finds the proxy."""
        return url_of(self.settings.host)

    def spec(self, name: str, folder: Path) -> Spec:
        """What the backend of that name is to run, its socket in `folder`."""
        host, model = self.settings.host, self.models[name]
        placement = Placement(
            name=name,
            model=model,
            socket=socket_of(folder, name),
            slots=host.engine.slots,
            batch_tokens=self.settings.max_input_tokens,
            gpu_layers=host.engine.gpu_layers,
            threads=host.engine.threads,
        )
        canary = Canary(
            socket=placement.socket,
            dimensions=self.settings.family.dimensions,
            golden=golden_path(state_dir() / "golden", model),
        )
        return Spec(engine=self.engine, placement=placement, policy=host.supervision, canary=canary)


def url_of(host: HostConfig) -> str:
    """Where a client on this machine finds the proxy."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.host, host.host)  # noqa: S104 # compared, not bound
    return f"http://[{address}]:{host.port}" if ":" in address else f"http://{address}:{host.port}"


def socket_of(folder: Path, name: str) -> Path:
    """Where the llama-server of that backend listens."""
    return folder / f"{name}.sock"
