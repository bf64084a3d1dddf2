"""All checks of `trillama doctor`, one after the other. A check that crashes counts as a failed check, no more."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from launcher.doctor import cluster, engine, host, limits, setup
from launcher.doctor.engine import Machine
from launcher.doctor.finding import Finding, fail, ok
from launcher.engine import devices, discovery
from launcher.errors import LauncherError
from launcher.settings.config import Settings

T = TypeVar("T")
_HOST: dict[str, Callable[[], Finding]] = {
    "python": host.python,
    "packages": host.packages,
    "nvidia driver": host.nvidia_driver,
    "system": host.system,
    "processors": limits.processors,
    "memory": limits.memory,
    "folders": limits.folders,
    "clock": host.clock,
    "open files": host.open_files,
    "systemd": host.systemd,
    "ray": cluster.ray_token,
}
SETUP: dict[str, Callable[[Settings], Awaitable[Finding]]] = {
    "port": setup.port,
    "runtime folder": setup.runtime_folder,
    "stale folders": setup.stale_folders,
    "exposure": setup.exposure,
}
ENGINE: dict[str, Callable[[Machine], Awaitable[Finding]]] = {
    "engine": engine.chosen_engine,
    "images": engine.images,
    "flash attention": engine.flash_attention,
    "devices": engine.devices,
    "threads": engine.threads,
    "memory plan": engine.memory_plan,
}
FILES: dict[str, Callable[[Settings, bool], Awaitable[Finding]]] = {
    "disk": setup.disk,
    "model files": setup.complete_model_files,
}
CONFIGURATION = "configuration"
LINES = (*_HOST, CONFIGURATION, *SETUP, *ENGINE, *FILES)  # the names of all checks


@dataclass(frozen=True, slots=True)
class CheckLine:
    """A finding, with the name of its check."""

    name: str
    finding: Finding


async def examine(load: Callable[[], Settings], *, deep: bool) -> list[CheckLine]:
    """The line of every check, in the order of the tables; `load` reads the configuration, which may be broken.

    `deep` reads every model file completely, for its SHA-256. Raises nothing.
    """
    lines = [await _line(name, _as_async(check)) for name, check in _HOST.items()]
    read: list[Settings] = []

    async def configuration() -> Finding:
        read.append(load())
        return ok(f"valid; the family is {read[0].family.name}")

    lines.append(await _line(CONFIGURATION, configuration))
    if not read:
        return lines
    settings = read[0]
    lines += [await _line(name, _on(check, settings)) for name, check in SETUP.items()]
    lines += await _engine_lines(settings)
    served = setup.named(settings)
    lines += [await _line(name, _files(check, served, deep)) for name, check in FILES.items()]
    return lines


async def _engine_lines(settings: Settings) -> list[CheckLine]:
    found: list[Machine] = []

    async def find() -> Finding:
        one = await discovery.find_engine(settings.host.engine.llama_server)
        found.append(Machine(settings=settings, engine=one, devices=await devices.read_devices(one)))
        return ok("")

    line = await _line("engine", find)
    if not found:
        return [line]
    return [await _line(name, _on(check, found[0])) for name, check in ENGINE.items()]


async def _line(name: str, check: Callable[[], Awaitable[Finding]]) -> CheckLine:
    try:
        return CheckLine(name, await check())
    except LauncherError as error:
        return CheckLine(name, fail(str(error), "do what it says, then run `trillama doctor` again"))
    except Exception as error:  # noqa: BLE001 # one check that crashes must not hide what the others find
        return CheckLine(name, fail(f"the check itself failed: {error!r}", "please report it with this line"))


def _as_async(check: Callable[[], Finding]) -> Callable[[], Awaitable[Finding]]:
    async def run() -> Finding:
        return check()

    return run


def _on(check: Callable[[T], Awaitable[Finding]], subject: T) -> Callable[[], Awaitable[Finding]]:
    return lambda: check(subject)


def _files(
    check: Callable[[Settings, bool], Awaitable[Finding]], settings: Settings, deep: bool
) -> Callable[[], Awaitable[Finding]]:
    return lambda: check(settings, deep)
