"""The settings of a Front, and its control API on a UNIX socket: which nodes there are, and how each is.

A Front is a proxy whose vectors are computed by *nodes*: whole trillama servers on other hosts, reached by HTTP.
`python -m proxy --front FILE` runs one.

- `PUT /nodes`: a JSON object {name: URL} replaces the list of nodes. Pieces in flight on a node that is not in the new
  list complete. 204; 422 with the faults as text, and the list stays as it was.
- `GET /nodes`: a JSON object {name: NodeReport}.
- `POST /accept`, `POST /finish`: as of any proxy; see `proxy.http.admin`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from proxy.contract.family import Family, Positive
from proxy.contract.settings import EdgeOptions
from proxy.contract.settings_file import BadSettings, LocalPath, read_toml, validated_settings

# The length apart: pydantic compiles \w{1,128} to 128 tables of Unicode's letters, in a quarter of a second.
NodeName = Annotated[str, Field(pattern=r"^[\w.:-]+$", max_length=128)]
NodeUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+/?$")]
NODE_LIST: TypeAdapter[dict[str, str]] = TypeAdapter(dict[NodeName, NodeUrl])


class FrontSettings(EdgeOptions):
    """The whole file of a Front."""

    family: LocalPath  # the family file, relative to this file; the nodes serve the same family
    nodes: dict[NodeName, NodeUrl] = Field(default_factory=dict)  # the nodes' base URLs, by name
    # the vector space of each backend, as a node's `/ready` shows it; without it that of the first node that is ready
    spaces: dict[str, str] = Field(default_factory=dict)
    # the key sent to the nodes; without it the client's own, so that the nodes are fair between clients
    node_api_key: str | None = None
    piece_texts: Positive = 32  # texts of a request that are sent to one node at once
    piece_bytes: Positive = 60 * 2**10  # of these texts
    host: str = "127.0.0.1"  # the address to listen on
    port: Annotated[int, Field(ge=0, le=65535)] = 8080  # 0: a free one
    drain_s: Annotated[float, Field(ge=0)] = 10.0  # how long requests may take when the Front ends
    control: Path | None = None  # the UNIX socket of the control API


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """One node as the Front sees it. `reason` says why it is not ready.

    `backends` and `spaces` as its `/ready` has them: the state and the vector space of each backend. `queued_tokens`
    wait there, as it said last, for whatever client; `in_flight` pieces were sent by this Front. `restarts`: how often
    it came back after it was down. `leaving`: it is not in the list any more, and completes its pieces.
    """

    url: str
    ready: bool
    reason: str
    backends: Mapping[str, str]
    spaces: Mapping[str, str]
    queued_tokens: int
    tokens_per_s: float
    in_flight: int
    in_flight_tokens: int
    restarts: int
    leaving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontLoad:
    """All nodes together, and the requests that wait because no node is ready."""

    nodes: int
    nodes_ready: int
    waiting_requests: int
    queued_tokens: int
    tokens_per_s: float


def load_front_settings(path: Path) -> tuple[FrontSettings, Family]:
    """The settings in `path` and the family they name. Raises BadSettings."""
    config = validated_settings(FrontSettings, read_toml(path), path)
    family_file = path.parent / config.family
    family = validated_settings(Family, read_toml(family_file), family_file)
    try:
        config.check(family)
    except ValueError as error:
        raise BadSettings(f"{path}: {error}") from error
    return config, family
