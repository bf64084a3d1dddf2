"""Every file in configs/ loads."""

from pathlib import Path

import pytest

from launcher.settings.config import load as load_host
from proxy.contract.settings import load_proxy_settings as load_proxy
from proxy.embedding.tasks import TaskTable

CONFIGS = Path(__file__).parents[2] / "configs"
HOSTS = ["cpu.toml", "demo.toml", "gpu-8gb.toml", "gpu-12gb.toml", "gpu-24gb.toml"]


def test_no_file_is_left_out() -> None:
    assert {path.name for path in CONFIGS.glob("*.toml")} == {*HOSTS, "proxy.toml", "jina-embeddings-v4.toml"}


@pytest.mark.parametrize("name", HOSTS)
def test_a_hosts_file_loads(name: str) -> None:
    settings = load_host(CONFIGS / name)
    assert settings.family.name == "jina-embeddings-v4"
    assert settings.max_input_tokens <= settings.family.max_input_tokens


def test_the_proxys_file_loads_with_its_family() -> None:
    _, family = load_proxy(CONFIGS / "proxy.toml")
    assert set(TaskTable(family).tasks) == set(family.tasks)
