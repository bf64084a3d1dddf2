"""What a proxy is to read: the user's `[proxy]` table and what only the launcher knows."""

from collections.abc import Collection
from pathlib import Path

from launcher.multivector.projector import path_of
from launcher.settings.family import BY_TOKEN
from launcher.supervision.deployment import Deployment, socket_of
from proxy.contract.settings import BackendSettings, ProxySettings


def settings_of(deployment: Deployment, folder: Path, paused: Collection[str] = ()) -> ProxySettings:
    """The settings of a proxy in front of the launch's llama-servers, whose sockets are in `folder`.

    It begins with those in `held` paused. The family's file and the control socket are those of one process: they are
    filled in by who starts it.
    """
    host, family = deployment.settings.host, deployment.settings.family
    given = host.proxy.model_dump(exclude_unset=True)
    # Cores compute one batch faster than three at a time.
    given.setdefault("serial_backends", not (host.engine.gpu_layers and deployment.devices.gpus))
    if family.multivector and not host.demo:  # the original's projector knows nothing of the demo models' states
        given.setdefault("multivector_file", path_of(family))
    second = {name: name + BY_TOKEN for name in deployment.models if name + BY_TOKEN in deployment.processes}
    return ProxySettings(
        **given,
        notice=host.notice,
        family=deployment.settings.family_file,
        host=host.host,
        port=host.port,
        drain_s=host.supervision.grace_s,
        max_input_tokens=deployment.settings.max_input_tokens,
        backends={
            name: _backend(deployment, folder, name, slots=host.engine.slots, paused=paused)
            for name in family.weights.models
        },
        token_backends={
            name: _backend(deployment, folder, other, slots=1, paused=paused) for name, other in second.items()
        },
    )


def _backend(
    deployment: Deployment, folder: Path, name: str, *, slots: int, paused: Collection[str]
) -> BackendSettings:
    return BackendSettings(
        url=f"unix://{socket_of(folder, name)}",
        slots=slots,
        batch_tokens=deployment.settings.max_input_tokens,
        model_file=deployment.processes.get(name),
        on_demand=name in paused,
        lock=folder / f"{name}.lock",
    )
