"""cluster.toml, Ray's command line, the token, and the commands without Ray."""

import stat
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launcher.cluster import head, ray_start
from launcher.cluster.cluster_cli import cluster_app, head_address
from launcher.cluster.fixed_nodes import node_urls
from launcher.cluster.haproxy import fronts_configuration, nodes_configuration
from launcher.cluster.settings import RAY_PORTS, load_cluster
from launcher.errors import ArgumentError, ConfigError, LauncherError
from proxy.contract.front import load_front_settings


def written(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_is_a_cluster_on_this_machine(tmp_path: Path) -> None:
    cluster = load_cluster(written(tmp_path, ""))
    assert (cluster.config.front.host, cluster.config.ray.address) == ("127.0.0.1", "127.0.0.1")
    assert cluster.family.name == "jina-embeddings-v4"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[front]\nprt = 1", "front.prt: there is no such setting; did you mean port?"),
        ("[proxy]\nconsole = true", "proxy.console: there is no such setting"),
        ("[scale]\nmin_nodes = 3\nmax_nodes = 2", "max_nodes = 2 is less than min_nodes = 3"),
        ("[proxy]\napi_keys = []", "is empty, and would serve everybody"),
        ("[ray]\nport = 65500", "ray.port"),
        ('family = "jina-embeddings-v44"', "there is none of that name, but jina-embeddings-v4"),
    ],
)
def test_faults_are_named_as_in_the_file(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_cluster(written(tmp_path, text))
    assert fault in str(error.value)


def test_the_token_is_made_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    path = ray_start.made_token(tmp_path / "new" / "token")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ray_start.made_token(path).read_text() == path.read_text()
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="may be read by others"):
        ray_start.found_token(path)


def test_a_host_without_the_token_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="copy it from the head"):
        ray_start.found_token(tmp_path / "token")


def test_rays_ports_are_all_different_and_in_their_range() -> None:
    for start_at in range(60):
        numbered = list(ray_start.ports(6379, start_at).values())
        assert len(set(numbered)) == len(numbered)
        assert 6379 < min(numbered) < max(numbered) < 6379 + RAY_PORTS


def test_what_rays_head_means_for_a_killed_host_does_not_reach_the_next_start_there() -> None:
    killed = ray_start.ports(6379, 1000.0)["--node-manager-port"]
    assert all(ray_start.ports(6379, 1000.0 + after)["--node-manager-port"] != killed for after in range(2, 35))


def test_the_environment_asks_for_the_token_and_hides_the_users_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    environment = ray_start.ray_environment(tmp_path / "token")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")


def test_commands_say_what_is_missing_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for arguments in (["head", str(written(tmp_path, ""))], ["join", "front"]):
        done = CliRunner().invoke(cluster_app, arguments)
        assert isinstance(done.exception, LauncherError)
        assert "pip install 'trillama[cluster]'" in str(done.exception)


def test_haproxy_before_nodes_asks_for_their_vector_space() -> None:
    text = nodes_configuration("10.0.0.1", 8080, ["http://gpu1:8080", "http://gpu2:8080"], "abc")
    assert "http-check expect hdr name X-Trillama-Spaces value abc" in text
    assert "server node-2 gpu2:8080" in text


def test_nodes_are_given_as_a_front_takes_them() -> None:
    assert node_urls(["http://gpu1:8080/v1", "[::1]:8080"]) == {
        "gpu1:8080": "http://gpu1:8080",
        "::1:8080": "http://[::1]:8080",
    }
    for given in ("http://gpu1:8080/path", "http://user:pass@gpu1:8080"):
        with pytest.raises(ArgumentError, match="is not the address of a node"):
            node_urls([given])


def test_a_head_is_a_host_with_or_without_a_port() -> None:
    given = ("gpu1", "gpu1:7000", "[fd00::1]:7000", "fd00::1")
    assert [head_address(one) for one in given] == [
        ("gpu1", 6379),
        ("gpu1", 7000),
        ("fd00::1", 7000),
        ("fd00::1", 6379),
    ]
    for wrong in ("", "gpu1:port", "gpu1/path", ":7000"):
        with pytest.raises(ArgumentError):
            head_address(wrong)


def test_what_makes_a_job_is_never_sent_twice() -> None:
    for text in (fronts_configuration(7, [1]), nodes_configuration("::1", 8080, ["http://gpu1:8080"], "abc")):
        assert "disable-l7-retry if { path /run /v1/batches /v1/batch/embeddings /v1/files }" in text
        assert "option forwardfor" in text


def test_haproxy_before_fronts_listens_on_the_heads_socket() -> None:
    assert "bind fd@7" in fronts_configuration(7, [1, 2])


@pytest.mark.parametrize("own", ["", "batches"])
def test_the_fronts_of_a_head_keep_batches_in_one_folder(tmp_path: Path, own: str) -> None:
    text = f'[proxy]\nbatches_dir = "{tmp_path / own}"' if own else ""
    state = tmp_path / "state"
    with head._fronts(load_cluster(written(tmp_path, text)), tmp_path, state) as fronts:  # noqa: SLF001 # no Ray needed
        kept = {load_front_settings(one.file)[0].batches_dir for one in fronts}
    assert len(fronts) == 2
    assert kept == {tmp_path / own if own else state / "batches"}


def test_without_a_file_there_is_one_front_and_arguments_take_precedence(tmp_path: Path) -> None:
    alone = load_cluster(None, "all-MiniLM-L6-v2", {"host": None, "port": 9000})
    front = alone.config.front
    assert (alone.family.name, front.fronts, front.host, front.port) == ("all-MiniLM-L6-v2", 1, "127.0.0.1", 9000)
    file = tmp_path / "cluster.toml"
    file.write_text("[front]\nport = 1\nfronts = 3\n", encoding="utf-8")
    front = load_cluster(file, None, {"host": "0.0.0.0", "port": None}).config.front
    assert (front.fronts, front.host, front.port) == (3, "0.0.0.0", 1)
