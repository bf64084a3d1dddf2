"""cluster.toml: the cluster as its head runs it. Read once, frozen, strict."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from launcher.errors import ConfigError
from launcher.settings.config import family_path, read_family, read_file, validated_file
from launcher.settings.credentials import api_keys
from launcher.settings.family import FamilyFile
from launcher.settings.file_kind import FileKind
from proxy.contract.family import Positive, Strict
from proxy.contract.settings import EdgeOptions, Seconds

ListenPort = Annotated[int, Field(ge=0, le=65535)]
RAY_PORTS = 128  # as many as `ray_start.ports` takes, from `[ray] port` on


class FrontOptions(Strict):
    """The endpoint; `[front]` in cluster.toml."""

    host: str = "127.0.0.1"  # the address that clients reach; `0.0.0.0` serves the network: set `api_keys` then
    port: ListenPort = 8080  # 0: a free one
    fronts: Annotated[int, Field(ge=1, le=16)] = 2  # processes; with one, a killed Front interrupts service for seconds
    piece_texts: Positive = 32  # texts that a request's piece for one node has at most
    # the vector space of each backend, as a node's `/ready` names it; without them those of the first node
    spaces: dict[str, str] = Field(default_factory=dict)


class RayOptions(Strict):
    """How Ray listens; `[ray]` in cluster.toml. A private network is needed all the same: docs/cluster.md."""

    address: str = "127.0.0.1"  # this host's address in the network of the hosts; other hosts join at it
    port: Annotated[int, Field(ge=1024, le=65535 - RAY_PORTS)] = 6379  # the first of 128 ports
    object_store_bytes: Annotated[int, Field(ge=80 * 10**6)] = 10**8  # Ray's shared memory; nothing of ours is in it


class NodeOptions(Strict):
    """How a node is judged; `[node]` in cluster.toml. What a host serves is in the host's own file."""

    unready_s: Seconds = 600.0  # a node that answers but is not ready for so long is started again


class ScaleOptions(Strict):
    """How many hosts serve; `[scale]` in cluster.toml. Without the table every host that has joined does."""

    min_nodes: Positive = 1  # always
    max_nodes: Positive  # never more
    queued_s: Seconds = 30.0  # another node is started when the queued tokens take longer than this
    idle_s: Seconds = 600.0  # a node is stopped when it was not needed for so long

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_nodes < self.min_nodes:
            raise ValueError(f"max_nodes = {self.max_nodes} is less than min_nodes = {self.min_nodes}")
        return self


class ClusterConfig(Strict):
    """All of cluster.toml."""

    # a name that `trillama families` lists, or the path of a family file (`.toml`), relative to this file
    family: str = "jina-embeddings-v4"
    front: FrontOptions = FrontOptions()  # the endpoint
    ray: RayOptions = RayOptions()  # the network between the hosts
    node: NodeOptions = NodeOptions()  # when a node counts as stuck
    scale: ScaleOptions | None = None  # how many of the hosts serve
    proxy: EdgeOptions = EdgeOptions()  # whom the Fronts serve, and their limits, as in the host's file


@dataclass(frozen=True, slots=True)
class Cluster:
    """cluster.toml, and the family it names; no file if the arguments are all there is."""

    file: Path | None
    config: ClusterConfig
    family: FamilyFile
    family_file: Path


def load_cluster(
    path: Path | None, given_family: str | None = None, given_front: Mapping[str, object] | None = None
) -> Cluster:
    """Read cluster.toml; what is given besides takes precedence where it is not None.

    Without a file there is one Front. API keys from systemd are added to those in the file. Raises ConfigError.
    """
    where = path or "the arguments"
    given: dict[str, object] = read_file(path) if path else {"front": {"fronts": 1}}
    front, asked = given.get("front", {}), {name: one for name, one in (given_front or {}).items() if one is not None}
    if asked and isinstance(front, Mapping):
        given["front"] = {**front, **asked}
    if given_family is not None:
        given["family"] = given_family
    config = validated_file(ClusterConfig, given, where, FileKind.CLUSTER)
    file = family_path(config.family, path)
    family = read_family(file)
    try:
        config.proxy.check(family)
    except ValueError as error:
        raise ConfigError(f"{where}: [proxy] {error}") from error
    if keys := api_keys():
        proxy = config.proxy.model_copy(update={"api_keys": (*config.proxy.api_keys, *keys)})
        config = config.model_copy(update={"proxy": proxy})
    return Cluster(path and path.absolute(), config, family, file.absolute())
