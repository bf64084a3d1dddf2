"""What Ray Serve is asked for, as Ray itself judges it."""

from pathlib import Path

from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from launcher.cluster.in_ray.node import built_application, node_application
from launcher.cluster.nodes import QueuedTokensPolicy
from launcher.cluster.settings import load_cluster

SCALE = "[scale]\nmin_nodes = 2\nmax_nodes = 8\nqueued_s = 20\nidle_s = 300\n"


def asked(folder: Path, text: str, hosts: int, revision: int = 1) -> ServeDeploySchema:
    file = folder / "cluster.toml"
    file.write_text(text, encoding="utf-8")
    return node_application(load_cluster(file).config, hosts, revision)


def test_ray_takes_the_autoscaling_settings_and_our_policy(tmp_path: Path) -> None:
    (app,) = asked(tmp_path, SCALE, 3).applications
    scaling = AutoscalingConfig.model_validate(app.deployments[0].autoscaling_config)
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 8)
    assert (scaling.upscale_delay_s, scaling.downscale_delay_s) == (20, 300)
    assert scaling.policy.get_policy().__name__ == QueuedTokensPolicy.__name__
    assert scaling.policy.policy_kwargs == {"queued_s": 20}


def test_without_scale_each_host_has_a_node(tmp_path: Path) -> None:
    (app,) = asked(tmp_path, "", 3).applications
    assert app.deployments[0].num_replicas == 3
    assert app.route_prefix is None


def test_another_number_of_hosts_starts_no_node_again_and_another_revision_does(tmp_path: Path) -> None:
    first, more, rolled = [asked(tmp_path, "", hosts, revision) for hosts, revision in ((2, 1), (3, 1), (2, 2))]
    assert first.applications[0].args == more.applications[0].args
    assert first.applications[0].args != rolled.applications[0].args
    assert built_application(dict(first.applications[0].args))
