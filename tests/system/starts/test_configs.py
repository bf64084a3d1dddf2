"""Every file in configs/ loads."""

from pathlib import Path

import pytest

from launcher.errors import ConfigError
from launcher.settings.config import load as load_host
from proxy.contract.settings import load_proxy_settings as load_proxy
from proxy.embedding.tasks import TaskTable

CONFIGS = Path(__file__).parents[3] / "configs"
V4, MINILM = "jina-embeddings-v4", "all-MiniLM-L6-v2"
HOSTS = {
    **dict.fromkeys(("cpu.toml", "demo-tiny.toml", "gpu-8gb.toml", "gpu-12gb.toml", "gpu-24gb.toml"), V4),
    "demo.toml": MINILM,
}


def test_no_file_is_left_out() -> None:
    assert {path.name for path in CONFIGS.glob("*.toml")} == {*HOSTS, "proxy.toml"}


@pytest.mark.parametrize("name", HOSTS)
def test_a_hosts_file_loads(name: str) -> None:
    settings = load_host(CONFIGS / name)
    assert settings.family.name == HOSTS[name]
    assert settings.max_input_tokens <= settings.family.max_input_tokens


def test_made_up_models_of_another_family_are_refused() -> None:
    with pytest.raises(ConfigError, match="demo = true makes models of jina-embeddings-v4 only: leave out demo, or"):
        load_host(None, {"family": MINILM, "demo": True})


def test_the_demos_model_is_served_under_the_name_and_with_the_tasks_of_the_real_one() -> None:
    ours, theirs = (load_host(None, {"family": name}).family for name in (MINILM, V4))
    assert TaskTable(ours).task_names == TaskTable(theirs).task_names
    assert ours.task_aliases == theirs.task_aliases
    assert all(TaskTable(ours).has_model(name) for name in (theirs.name, f"{theirs.name}-query", *theirs.model_aliases))
    assert (ours.licence, ours.dimensions, ours.max_input_tokens) == ("Apache-2.0", 384, 512)


def test_the_proxys_file_loads_with_its_family() -> None:
    _, family = load_proxy(CONFIGS / "proxy.toml")
    assert set(TaskTable(family).tasks) == set(family.tasks)
