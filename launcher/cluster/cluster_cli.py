"""`trillama cluster`: many hosts behind one endpoint. Arguments in, exit code out."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launcher.cluster import ray_start
from launcher.cluster.client import ClusterView, ask_cluster, drain_node
from launcher.cluster.fixed_nodes import check_hosts, node_urls, served_family
from launcher.cluster.haproxy import nodes_configuration
from launcher.cluster.head import HeadOptions, run_head, run_join
from launcher.cluster.nodes import DRAINED, HostVerdict
from launcher.cluster.ray_start import NodeCommand, RayPlace
from launcher.cluster.settings import FrontOptions, RayOptions, load_cluster
from launcher.control.ready_file import served_spaces
from launcher.errors import ArgumentError, NotRunning
from launcher.printable import stdout
from launcher.settings.folders import runtime_base
from launcher.supervision.probes import why_unready
from launcher.terminal.options import EXIT_CODES, Demo, Tiny, settings_of
from launcher.terminal.signals import until_signal

_REFRESH_S = 1.0
WAITS_S = 660.0  # for a node's last pieces: as long as a request may take

cluster_app = typer.Typer(help="Many hosts behind one endpoint.", no_args_is_help=True, epilog=EXIT_CODES)

ClusterFile = Annotated[Path, typer.Argument(metavar="CLUSTER.toml", help="The cluster's file; see docs/cluster.md.")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="The secret that all hosts share, mode 0600.")]
NodeConfig = Annotated[Path | None, typer.Option("--config", help="The host's TOML file: what its node serves.")]
NodeArgv = Annotated[list[str] | None, typer.Option("--node-argv", hidden=True)]  # the tests' nodes without models
Nodes = Annotated[list[str], typer.Option("--node", help="A running `trillama serve`; repeat it for each.")]
ForPrograms = Annotated[bool, typer.Option("--json", help="For programs.")]


@cluster_app.command(epilog=EXIT_CODES)
def head(
    cluster: ClusterFile,
    token_file: TokenFile = None,
    serve_here: Annotated[bool, typer.Option("--node", help="This host has a node, too.")] = False,
    config: NodeConfig = None,
    demo: Demo = False,
    tiny: Tiny = False,
    node_argv: NodeArgv = None,
) -> None:
    """Run the cluster's head on this host until Ctrl-C: the endpoint, and Ray's head, which other hosts join."""
    ray_start.check_installed()
    read = load_cluster(cluster)
    node = _node(read.config.ray.address, config, demo=demo, tiny=tiny, argv=node_argv) if serve_here else None
    options = HeadOptions(token=ray_start.made_token(token_file), node=node)
    asyncio.run(run_head(read, options, stdout))


@cluster_app.command(epilog=EXIT_CODES)
def join(
    head: Annotated[str, typer.Argument(help="The head's host, or host:port.")],
    token_file: TokenFile = None,
    address: Annotated[
        str | None, typer.Option(help="This host's address for the others [default: the one that reaches the head].")
    ] = None,
    first_port: Annotated[
        int, typer.Option(min=1024, max=65535 - ray_start.RAY_PORTS, help="The first of 128 ports for Ray.")
    ] = RayOptions.model_fields["port"].default,
    config: NodeConfig = None,
    demo: Demo = False,
    tiny: Tiny = False,
    node_argv: NodeArgv = None,
) -> None:
    """Let this host serve in a cluster until Ctrl-C: Ray starts `trillama serve` here, checks and restarts it."""
    ray_start.check_installed()
    name, port = head_address(head)
    own = address or ray_start.own_address(name, port)
    token, node = ray_start.found_token(token_file), _node(own, config, demo=demo, tiny=tiny, argv=node_argv)
    place = RayPlace(
        address=own,
        first_port=first_port,
        folder=ray_start.ray_folder(),
        object_store_bytes=RayOptions.model_fields["object_store_bytes"].default,
        node=True,
    )
    asyncio.run(run_join(f"[{name}]:{port}" if ":" in name else f"{name}:{port}", place, token, node))


@cluster_app.command(epilog=EXIT_CODES)
def front(
    node: Nodes,
    cluster: Annotated[
        Path | None, typer.Argument(metavar="CLUSTER.toml", help="For more Fronts, which need HAProxy, or API keys.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="What the nodes serve [default: ask the first node].")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port [default: 8080].")] = None,
) -> None:
    """Run the endpoint alone, in front of nodes that run elsewhere under services of their own.

    Needs no Ray, and without CLUSTER.toml no HAProxy either: one Front then answers clients itself.
    """
    urls = node_urls(node)
    asyncio.run(check_hosts(urls.values()))
    if cluster is None and family is None:
        family = asyncio.run(served_family(urls))
    read = load_cluster(cluster, family, {"host": host, "port": port})
    asyncio.run(run_head(read, HeadOptions(urls=urls), stdout))


@cluster_app.command("status", epilog=EXIT_CODES)
def cluster_status(
    json: ForPrograms = False,
    watch: Annotated[bool, typer.Option("--watch", help="Continue until Ctrl-C.")] = False,
) -> None:
    """Show the cluster whose head runs here. Exits with 0 if every node serves, 1 if one does not, 69 if none runs."""
    if watch:
        asyncio.run(until_signal(_watch()))
        return
    view = asyncio.run(ask_cluster(runtime_base(), "GET", "/status"))
    if json:
        stdout.print_json(view.model_dump_json(), ensure_ascii=True)
    else:
        stdout.print(_page(view))
    if not _is_fine(view):
        raise typer.Exit(1)


@cluster_app.command(epilog=EXIT_CODES)
def drain(
    node: Annotated[str, typer.Argument(help="The node, as `status` shows it, or its URL.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let it serve again.")] = False,
) -> None:
    """Send a node nothing more, and return when its last texts are computed: then its host can be switched off."""
    view = asyncio.run(drain_node(runtime_base(), node, undo=undo, within_s=WAITS_S))
    stdout.print(_page(view))


@cluster_app.command(epilog=EXIT_CODES)
def roll() -> None:
    """Start every node again, one after the other: for another version, or another model in the hosts' files."""
    stdout.print(_page(asyncio.run(ask_cluster(runtime_base(), "POST", "/roll"))))
    stdout.say("watch it: trillama cluster status --watch")


@cluster_app.command(epilog=EXIT_CODES)
def down() -> None:
    """End the nodes on all hosts, and the head. Ctrl-C on the head leaves the nodes running until it is back."""
    view = asyncio.run(ask_cluster(runtime_base(), "POST", "/down"))
    after = (
        "its nodes run on, as services of their own"
        if view.ray == "none"
        else "`trillama cluster join` on its hosts waits until there is one again"
    )
    stdout.say(f"the cluster at {view.url} ends; {after}")


@cluster_app.command(epilog=EXIT_CODES)
def haproxy(
    node: Nodes,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = FrontOptions.model_fields["host"].default,
    port: Annotated[int, typer.Option(min=1, max=65535)] = FrontOptions.model_fields["port"].default,
    spaces: Annotated[str | None, typer.Option(help="The nodes' vector spaces [default: the first node's].")] = None,
) -> None:
    """Print a haproxy.cfg for nodes that run as services of their own: no Ray and no Front, for small requests."""
    urls = list(node_urls(node).values())
    wanted = spaces or asyncio.run(served_spaces(urls[0]))
    if not wanted:
        raise NotRunning(f"--node {urls[0]} {asyncio.run(why_unready(urls[0]))}, or give --spaces")
    sys.stdout.write(nodes_configuration(host, port, urls, wanted))


def head_address(given: str) -> tuple[str, int]:
    """The host and the port of HOST, HOST:PORT, or an IPv6 address, in brackets if a port follows."""
    text = f"[{given}]" if given.count(":") > 1 and "[" not in given else given
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.netloc != text:
        raise ArgumentError(f"{given!r} is not the address of a head: give its host, or host:port")
    return host, port or RayOptions.model_fields["port"].default


def _node(address: str, config: Path | None, *, demo: bool, tiny: bool, argv: list[str] | None) -> NodeCommand:
    """How this host starts its node; wrong settings are reported here, not in Ray's log."""
    listen = ("--host", address, "--port", "0")
    if argv:
        return NodeCommand(host=address, argv=(*argv, *listen))
    if config and not config.is_file():
        raise ArgumentError(f"{config} does not exist")
    settings_of(config, demo=demo, tiny=tiny, overrides={"host": address, "port": 0})
    file = ("--config", str(config.absolute())) if config else ()
    flags = (*(("--demo",) if demo else ()), *(("--tiny",) if tiny else ()))
    return NodeCommand(host=address, argv=(sys.executable, "-P", "-m", "launcher", "serve", *listen, *file, *flags))


def _is_fine(view: ClusterView) -> bool:
    return (
        view.ray in {"running", "none"}
        and bool(view.nodes or view.fronts)
        and not any(one.reason for one in view.nodes)
    )


async def _watch() -> None:
    with Live(console=stdout, auto_refresh=False) as live:
        while True:
            live.update(_page(await ask_cluster(runtime_base(), "GET", "/status")), refresh=True)
            await asyncio.sleep(_REFRESH_S)


def _page(view: ClusterView) -> Group:
    nodes = _table("node", "state", "queue", "tokens/s", "restarts")
    for one in view.nodes:
        state = Text(_state(one), "red" if one.reason else "green")
        speed = f"{one.report.tokens_per_s:,.0f}" if one.report.tokens_per_s else ""
        nodes.add_row(one.report.host, state, str(one.report.queued_tokens), speed, str(one.restarts))
    programs = _table("process", "pid", "restarts", "memory")
    for program in view.programs:
        memory = f"{program.resident_bytes / 2**20:,.0f} MiB"
        programs.add_row(program.name, str(program.pid or ""), str(program.restarts), memory)
    rolling = ", rolling" if view.rolling else ""
    hosts = "without Ray" if view.ray == "none" else f"Ray {view.ray}, {len(view.hosts)} hosts"
    title = f"trillama cluster at {view.url}, {hosts}{rolling}"
    notes = [f"{name}: vector space {space}" for name, space in view.spaces.items()]
    notes += [f"{one.report.host}: {one.reason}" for one in view.nodes if one.reason not in {"", DRAINED}]
    return Group(Text(title), nodes, *map(Text, filter(None, [*notes, view.message])), programs)


def _state(one: HostVerdict) -> str:
    if one.reason == DRAINED:
        return DRAINED
    return "serves" if not one.reason else "refused" if one.report.ready else "waits"


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table
