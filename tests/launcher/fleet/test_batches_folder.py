"""Which folder of batches a server has: that of its configured port, or none."""

import socket
from pathlib import Path

import pytest

from launcher.engine.devices import without_gpus
from launcher.engine.discovery import Engine, Origin
from launcher.fleet.temporary import for_one_call
from launcher.proxies.settings import proxy_settings
from launcher.settings.config import Settings, load
from launcher.supervision.deployment import Deployment


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    return tmp_path


def folder_of(settings: Settings, folder: Path) -> Path | None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        deployment = Deployment(
            settings=settings.with_host(port=listener.getsockname()[1]),
            listener=listener,
            engine=Engine(argv=("llama-server",), version="1", flags=frozenset(), origin=Origin.PATH, env={}),
            models={},
            logs=folder,
            devices=without_gpus(),
            asked_port=settings.host.port,
        )
        return proxy_settings(deployment, folder).batches_dir


def test_it_is_named_by_the_configured_port(state: Path) -> None:
    assert folder_of(load(None, {"port": 8123}), state) == state / "batches" / "8123"


def test_a_server_on_a_free_port_has_none_but_one_of_its_own(state: Path) -> None:
    settings, own = load(None, {"port": 0}), state / "mine"
    assert folder_of(settings, state) is None
    given = settings.with_host(proxy=settings.host.proxy.model_copy(update={"batches_dir": own}))
    assert folder_of(given, state) == own


def test_a_server_for_one_call_runs_nobodys_batches(state: Path) -> None:
    settings = load(None, {"port": 8123, "proxy": {"batches_dir": str(state / "mine")}})
    assert folder_of(for_one_call(settings), state) is None
