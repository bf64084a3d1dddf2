"""Everything that is decided before a process starts, and from it what each process runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

from launcher.engine.argv import ServerSpec
from launcher.engine.cpu_fallback import gpu_is_required
from launcher.engine.devices import Devices
from launcher.engine.discovery import Engine
from launcher.host.cores import engine_threads
from launcher.images.prompt import media_marker
from launcher.planning.placement import Placement
from launcher.settings.config import HostConfig, Mode, Settings
from launcher.settings.family import BY_TOKEN
from launcher.settings.folders import state_dir
from launcher.supervision.golden_check import GoldenCheck, GoldenImage, golden_path
from launcher.supervision.server_run import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """`models` has a checked file for each backend to be started, and `loras` those of the backends that have one.

    `mmproj` is the vision encoder of all of them, if they take images. `logs` is the folder for their output.
    `asked_port` is the configured port, which may be 0; the settings have the listener's.
    """

    settings: Settings
    listener: socket
    engine: Engine
    models: Mapping[str, Path]
    logs: Path
    devices: Devices
    asked_port: int
    loras: Mapping[str, Path] = field(default_factory=dict)
    mmproj: Path | None = None
    placements: Mapping[str, Placement] = field(default_factory=dict)  # empty if nothing was planned: all devices
    capacity: Mapping[str, int] = field(default_factory=dict)  # bytes by device, for all models; empty: no limit

    @property
    def url(self) -> str:
        """The proxy's URL for a client on this machine."""
        return url_of(self.settings.host)

    @property
    def processes(self) -> dict[str, Path]:
        """Each llama-server's model file by its name: one per model, and with token_level a second one per model."""
        token_level = self.models if self.settings.host.late_chunking.token_level else {}
        return {**self.models, **{name + BY_TOKEN: file for name, file in token_level.items()}}

    def on_demand(self, name: str) -> bool:
        """Whether that backend is started by its first request."""
        placed = self.placements.get(name)
        return self.settings.backend(name).mode is Mode.ON_DEMAND or (placed is not None and placed.on_demand)

    def spec(self, name: str, folder: Path) -> RunSpec:
        """What the backend of that name runs, with its socket in `folder`."""
        host, model, by_token = self.settings.host, self.processes[name], name.endswith(BY_TOKEN)
        rules, lora = self.settings.family.weights, self.loras.get(name.removesuffix(BY_TOKEN))
        placed = self.placements.get(name.removesuffix(BY_TOKEN))
        gpus = tuple(one.name for one in self.devices.gpus) if host.engine.gpu_layers else ()
        on_gpu = bool(gpus) and gpu_is_required(host.engine, self.devices)
        placement = ServerSpec(
            name=name,
            model=model,
            socket=socket_of(folder, name),
            slots=1 if by_token else host.engine.slots,
            pooling="none" if by_token else rules.pooling,
            rope_scaling=rules.rope_scaling,
            lora=lora,
            batch_tokens=self.settings.max_input_tokens,
            gpu_layers=host.engine.gpu_layers,
            threads=host.engine.threads or engine_threads(),
            flash_attention=host.engine.flash_attention,
            extra_flags=host.engine.extra_flags,
            devices=placed.devices if placed else gpus,
            tensor_split=placed.tensor_split if placed else (),
            mmproj=self.mmproj,
            media_marker=media_marker() if self.mmproj else "",
        )
        return RunSpec(
            engine=self.engine,
            placement=placement,
            policy=host.supervision,
            golden=self._golden_check(placement, on_gpu=on_gpu),
            on_demand=self.on_demand(name),
            on_gpu=on_gpu,
            memory=memory_of(placed) if placed else {},
        )

    def _golden_check(self, spec: ServerSpec, *, on_gpu: bool) -> GoldenCheck:
        policy, rules, folder = self.settings.host.supervision, self.settings.family.weights, state_dir() / "golden"
        of_image = golden_path(folder, spec.model, rules, spec.lora, spec.mmproj)
        return GoldenCheck(
            socket=spec.socket,
            dimensions=self.settings.family.dimensions,
            golden=golden_path(folder, spec.model, rules, spec.lora),
            timeout_s=policy.canary_timeout_s,
            least_tokens_per_s=policy.gpu_tokens_per_s if on_gpu and not self.devices.unified else 0.0,
            by_token=spec.pooling == "none",
            pooling=rules.pooling,
            image=GoldenImage(spec.media_marker, of_image) if spec.mmproj else None,
        )


def memory_of(placed: Placement) -> dict[str, int]:
    """The bytes that a backend is planned to take of each device, or of RAM if it is on none."""
    if not placed.devices:
        return {"RAM": placed.need.ram}
    parts = placed.tensor_split or (1.0,)
    return {
        device: placed.need.fixed + round(placed.need.spread * part)
        for device, part in zip(placed.devices, parts, strict=True)
    }


def url_of(host: HostConfig) -> str:
    """The proxy's URL for a client on this machine."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.host, host.host)  # noqa: S104 # compared, not bound
    return f"http://[{address}]:{host.port}" if ":" in address else f"http://{address}:{host.port}"


def socket_of(folder: Path, name: str) -> Path:
    """The socket that the backend's llama-server listens on."""
    return folder / f"{name}.sock"
