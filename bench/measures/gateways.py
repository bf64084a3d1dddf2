"""The cost of other gateways in front of the same llama-server: nginx, its own router, LiteLLM's proxy."""

import os
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import orjson

from bench.rows import Found, Row
from bench.servers.contenders import Contender, Host, Program, up
from bench.servers.environments import virtual_environment
from bench.servers.setups import defaults, direct, router, trillama
from launcher.measure.loadgen import Summary, closed_loop, cut, summary, texts
from tests.support.servers.stack import unused_port

_ROUNDS, ROUND_S, _CLIENTS = 3, 1.2, 8


async def gateways(host: Host, seed: int) -> Found:
    """Requests of one short text by _CLIENTS clients for ROUND_S, in turn; then by one client, for the latency."""
    notes: list[str] = []
    async with AsyncExitStack() as exits:
        alone = await exits.enter_async_context(direct(host))
        contenders = [alone, *[await exits.enter_async_context(start(host)) for start in (trillama, router, defaults)]]
        if nginx := shutil.which("nginx"):
            contenders.append(await exits.enter_async_context(_nginx(nginx, alone)))
        else:
            notes.append("nginx: not installed")
        if "litellm" in host.others:
            program = await virtual_environment("litellm")
            contenders.append(await exits.enter_async_context(_litellm(program, alone)))
        else:
            notes.append("LiteLLM's proxy: not asked for (--with litellm)")
        found: dict[str, list[tuple[Summary, Summary]]] = {one.name: [] for one in contenders}
        for number in range(_ROUNDS + 1):
            for one in contenders if number % 2 else contenders[::-1]:
                pair = [await _round(one, [seed, number, clients], clients) for clients in (1, _CLIENTS)]
                found[one.name].append((pair[0], pair[1]))
    return _found(host, {name: runs[1:] for name, runs in found.items()}, notes)


def _found(host: Host, found: dict[str, list[tuple[Summary, Summary]]], notes: Sequence[str]) -> Found:
    figures = {
        name: {
            "requests_per_s": statistics.median(many.texts_per_s for _, many in runs),
            "alone_p50_ms": statistics.median(one.p50_s for one, _ in runs) * 1e3,
            "p50_ms": statistics.median(many.p50_s for _, many in runs) * 1e3,
            "p99_ms": statistics.median(many.p99_s for _, many in runs) * 1e3,
            "failed": float(sum(one.failed + many.failed for one, many in runs)),
        }
        for name, runs in found.items()
    }
    ours = figures["trillama"]["requests_per_s"]
    rows = [
        Row(
            measure=f"requests/s of one short text, {_CLIENTS} clients, vs {name} ({host.made.shape.name})",
            goal="≥ 5" if name.startswith("LiteLLM") else "",
            seen=f"{ours / one['requests_per_s']:.2f}",
            met=ours >= 5 * one["requests_per_s"] if name.startswith("LiteLLM") else None,
        )
        for name, one in figures.items()
        if name != "trillama" and one["requests_per_s"]
    ]
    return Found(model=host.made.shape.why, rows=rows, figures=figures, notes=notes)


async def _round(one: Contender, seed: list[int], clients: int) -> Summary:
    requests = cut(texts(np.random.default_rng(seed), "short"), 1)
    return summary(await closed_loop(one.ask(), requests, clients=clients, seconds=ROUND_S))


@asynccontextmanager
async def _nginx(binary: str, behind: Contender) -> AsyncIterator[Contender]:
    """nginx as a plain proxy, with kept-alive connections to llama-server."""
    with tempfile.TemporaryDirectory() as folder:
        port, config = unused_port(), Path(folder, "nginx.conf")
        temporary = "".join(
            f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"daemon off; pid {folder}/pid; error_log stderr error; worker_processes 2;"
            "events { worker_connections 512; }"
            f"http {{ access_log off; {temporary} client_max_body_size 32m;"
            f"upstream engine {{ server {behind.url.removeprefix('http://')}; keepalive 32; }}"
            f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://engine;"
            'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 600s; } } }'
        )
        argv = (binary, "-p", folder, "-c", str(config), "-e", "stderr")
        async with up(Program(name="nginx before it", argv=argv, port=port, env=os.environ)) as contender:
            yield contender


@asynccontextmanager
async def _litellm(program: Path, behind: Contender) -> AsyncIterator[Contender]:
    """LiteLLM with everything optional switched off: no database, no logs, no key."""
    with tempfile.TemporaryDirectory() as folder:
        port, config = unused_port(), Path(folder, "config.yaml")
        served = {"model": "openai/bench", "api_base": f"{behind.url}/v1", "api_key": "none"}
        config.write_bytes(orjson.dumps({"model_list": [{"model_name": "bench", "litellm_params": served}]}))
        argv = (str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port))
        env = {
            **os.environ,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no keys are checked here
            "PATH": f"{program.parent}:{os.environ['PATH']}",
        }
        body, health = {"model": "bench"}, "/health/liveliness"
        program_ = Program(name="LiteLLM's proxy before it", argv=argv, port=port, env=env, body=body, health=health)
        async with up(program_) as contender:
            yield contender
