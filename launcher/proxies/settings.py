"""The settings file of a proxy: the user's `[proxy]` table and what only the launcher knows."""

from collections.abc import Collection
from pathlib import Path

from launcher.images.prompt import media_marker
from launcher.multivector.projector import projector_path
from launcher.processes.runtime_folder import CONTROL_SOCKET
from launcher.settings.family import BY_TOKEN
from launcher.settings.folders import state_dir
from launcher.supervision.deployment import Deployment, socket_of
from proxy.contract.images import BackendImages
from proxy.contract.settings import BackendSettings, ProxySettings


def proxy_settings(deployment: Deployment, folder: Path, paused: Collection[str] = ()) -> ProxySettings:
    """The settings of a proxy in front of the deployment's llama-servers, whose sockets are in `folder`.

    It starts with those in `paused` paused. Its copy of the family file and its control socket are of one process:
    `ProxyProcess` fills them in.
    """
    host, family = deployment.settings.host, deployment.settings.family
    given = host.proxy.model_dump(exclude_unset=True)
    # Cores compute one batch faster than three at a time.
    given.setdefault("serial_backends", not (host.engine.gpu_layers and deployment.devices.gpus))
    if deployment.asked_port:  # a free one is another at each start: nobody would come back for its batches
        given.setdefault("batches_dir", state_dir() / "batches" / str(deployment.asked_port))
    if family.multivector and not host.demo:  # the original's projector does not fit the demo models
        given.setdefault("multivector_file", projector_path(family))
    token_level = {name: name + BY_TOKEN for name in deployment.models if name + BY_TOKEN in deployment.processes}
    return ProxySettings(
        **given,
        notice=host.notice,
        launcher=folder / CONTROL_SOCKET,
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
            name: _backend(deployment, folder, server, slots=1, paused=paused) for name, server in token_level.items()
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
        lora_file=deployment.loras.get(name.removesuffix(BY_TOKEN)),
        on_demand=name in paused,
        lock=folder / f"{name}.lock",
        images=BackendImages(marker=media_marker(), mmproj_file=deployment.mmproj) if deployment.mmproj else None,
    )
