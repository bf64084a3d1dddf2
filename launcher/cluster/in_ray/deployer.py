"""The process that speaks to Ray: deploys the nodes and tells the head how they are.

A process of its own, because Ray ends every process that is connected to it when its head is lost, and those that serve
requests must not end then. It reads `wanted.json` and writes `seen.json`, both in the head's private folder.
"""

import argparse
import logging
import os
import signal
import time
from pathlib import Path

import ray
from ray import serve
from ray.serve.context import _get_global_client

from launcher.cluster.in_ray import node
from launcher.cluster.nodes import ABSENT, SEEN, WANTED, HostReports, Seen, Wanted
from launcher.cluster.ray_start import NODE_RESOURCE
from launcher.cluster.settings import load_cluster
from launcher.host.disk import atomic_file

log = logging.getLogger(__name__)

_ROUND_S = 0.5


def deploy(file: Path, folder: Path) -> None:
    """Keep the cluster's nodes deployed until Ray's head is lost, or this process is ended."""
    config = load_cluster(file).config
    address = f"{config.ray.address}:{config.ray.port}"
    ray.init(address=address, namespace=node.NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # Ray's own handler writes its stack
    serve.start(proxy_location="Disabled")  # no request passes through Ray
    table = node.host_table()
    deployed: tuple[int, int] | None = None
    while True:
        wanted = Wanted.model_validate_json((folder / WANTED).read_bytes())
        hosts = _hosts()
        # Ray Serve would count a node for which there is no host as one that does not start, and stop a roll there.
        asked = len(hosts) or 1, wanted.revision
        if not wanted.nodes:
            serve.delete(node.APP)
        elif asked != deployed:
            _get_global_client().deploy_apps(node.node_application(config, *asked))
            deployed = asked
        _write(folder / SEEN, _seen(hosts, ray.get(table.nodes.remote(), timeout=10)))
        time.sleep(_ROUND_S)  # this process does nothing else, and Ray's calls above block


def _hosts() -> tuple[str, ...]:
    """The addresses of the hosts that can have a node. Ray lists a host twice until it misses the Ray killed there."""
    alive = [one for one in ray.nodes() if one["Alive"] and NODE_RESOURCE in one["Resources"]]
    return tuple(sorted({str(one["NodeManagerAddress"]) for one in alive}))


def _seen(hosts: tuple[str, ...], reports: HostReports) -> Seen:
    overview = serve.status().applications.get(node.APP)
    status = str(overview.status.value) if overview else ABSENT
    deployment = overview.deployments.get(node.NODE) if overview else None
    message = str(deployment.message) if deployment else ""
    return Seen(at=time.time(), hosts=hosts, reports=reports, status=status, message=message)


def _write(path: Path, seen: Seen) -> None:
    with atomic_file(path) as unfinished:
        unfinished.write_text(seen.model_dump_json(), encoding="utf-8")


def main() -> None:
    """Read the command line and deploy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    deploy(given.file, given.folder)


if __name__ == "__main__":
    main()
