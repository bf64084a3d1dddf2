"""The setups that are compared: trillama as a user runs it, and llama-server in three."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.servers.contenders import BATCH_TOKENS, SLOTS, Contender, Host, Program, client_session, up
from launcher.engine import argv as command
from tests.support.servers.serve import trillama_serve
from tests.support.servers.stack import unused_port


@asynccontextmanager
async def trillama(host: Host) -> AsyncIterator[Contender]:
    """The whole service, without loading the two models that are not used."""
    names = ("retrieval", "code", "text-matching")
    config: dict[str, object] = {
        "family": str(host.made.family),
        "max_input_tokens": host.batch_tokens,
        "models": {"files": dict.fromkeys(names, str(host.made.model))},
        "engine": {
            "gpu_layers": host.gpu_layers,
            "slots": host.slots,
            "threads": host.threads,
            **({"llama_server": host.engine.argv[0]} if len(host.engine.argv) == 1 else {}),
        },
        "backends": {name: {"mode": "on-demand"} for name in names[1:]},
        "proxy": {"log_level": "warning"},
    }
    async with trillama_serve(config) as served, client_session() as session:
        pid, engine = served.child("proxy").pid, served.child("--model").pid
        yield Contender(
            name="trillama",
            url=served.url,
            session=session,
            pid=pid,
            prefix="",
            body={"task": "retrieval.passage"},
            computing=(pid, engine),
            engine=next(served.runtime.glob(f"trillama-*/{names[0]}.sock")),
        )


@asynccontextmanager
async def direct(host: Host) -> AsyncIterator[Contender]:
    """llama-server with the same flags that trillama gives it."""
    placement = command.ServerSpec(
        name="direct",
        model=host.made.model,
        socket=Path("127.0.0.1"),
        slots=host.slots,
        batch_tokens=host.batch_tokens,
        gpu_layers=host.gpu_layers,
        threads=host.threads,
    )
    argv = (*command.argv(host.stock, placement), "--port", str(port := unused_port()))
    async with up(Program(name="llama-server, same flags", argv=argv, port=port, env=host.stock.env)) as contender:
        yield contender


@asynccontextmanager
async def defaults(host: Host) -> AsyncIterator[Contender]:
    """llama-server as its documentation says: a model and `--embedding`. It rejects texts over 512 tokens."""
    argv = (*host.stock.argv, "--model", str(host.made.model), "--embedding", "--pooling", "mean", "--offline")
    port = unused_port()
    argv = (*argv, "--host", "127.0.0.1", "--port", str(port), "--threads", str(host.threads))
    async with up(Program(name="llama-server, defaults", argv=argv, port=port, env=host.stock.env)) as contender:
        yield contender


@asynccontextmanager
async def router(host: Host) -> AsyncIterator[Contender]:
    """llama-server's own router in front of one child with our flags."""
    with tempfile.TemporaryDirectory() as folder:
        preset = Path(folder, "models.ini")
        preset.write_text(
            f"[bench]\nmodel = {host.made.model}\nembedding = true\npooling = mean\nkv-unified = true\n"
            f"parallel = {SLOTS}\nbatch-size = {BATCH_TOKENS}\nubatch-size = {BATCH_TOKENS}\n"
            f"ctx-size = {2 * BATCH_TOKENS}\ncache-ram = 1\nthreads = {host.threads}\nthreads-http = 64\n"
            "slot-prompt-similarity = 0\nfit = off\nverbosity = 1\n"
        )
        port = unused_port()
        argv = (*host.stock.argv, "--models-preset", str(preset), "--host", "127.0.0.1", "--port", str(port))
        argv = (*argv, "--threads-http", "64", "--offline", "--verbosity", "1")
        body = {"model": "bench"}
        program = Program(name="llama-server's router", argv=argv, port=port, env=host.stock.env, body=body)
        async with up(program) as contender:
            yield contender
