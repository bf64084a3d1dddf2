"""`trillama serve` as a user runs it: a process of its own, read by its output, ended by signals."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import tomli_w

from tests.support.engines.engine import EngineMissing, native_binary
from tests.support.servers.stack import unused_port

TIMEOUT_S = 60.0


@dataclass(slots=True, kw_only=True)
class Serve:
    """A running `trillama serve`: its file, the folder of its sockets, and that of its children's output."""

    process: asyncio.subprocess.Process
    url: str
    config: Path
    runtime: Path
    logs: Path
    env: Mapping[str, str]
    output: list[str] = field(default_factory=list)

    def children(self) -> list[psutil.Process]:
        """Every process below it."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def child(self, marker: str) -> psutil.Process:
        """The one child whose command line has `marker`."""
        (found,) = [one for one in self.children() if any(marker in part for part in _argv(one))]
        return found

    async def kill(self, marker: str) -> None:
        """SIGKILL that child, and wait until it is gone: what is asked next cannot meet it, alive or a zombie."""
        victim = self.child(marker)
        victim.kill()
        await gone([victim])

    async def command(self, *arguments: str) -> tuple[int, str]:
        """The exit code and output of `trillama ARGUMENTS` for this one."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "launcher", *arguments, "--config", str(self.config)),
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
        return await process.wait(), output.decode()

    async def until(self, text: str) -> None:
        """Read on until a line has `text`; fails with all lines if the process ends before."""
        while True:
            line = await self.line()
            assert line, f"ended without {text!r}:\n{''.join(self.output)}"
            if text in line:
                return

    async def ended(self) -> int:
        """The exit code, when it has ended by itself or by a signal; everything it printed is in `output`."""
        async with asyncio.timeout(TIMEOUT_S):
            while await self.line():
                pass
            return await self.process.wait()

    async def line(self) -> str:
        """The next line of its output; empty when it has ended."""
        assert self.process.stdout
        async with asyncio.timeout(TIMEOUT_S):
            line = (await self.process.stdout.readline()).decode()
        self.output.append(line)
        return line


@asynccontextmanager
async def trillama_serve(
    config: Mapping[str, object],
    *,
    ready: bool = True,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    through: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[Serve]:
    """`trillama serve` with that config on a free port and in a folder of its own, ready unless told otherwise.

    `arguments` are added to the command. `through` is a command that runs it and is given `pass_fds`, as by systemd.
    """
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        runtime, file, port = Path(folder, "run"), Path(folder, "host.toml"), unused_port()
        file.write_text(tomli_w.dumps({"port": port, "runtime_dir": str(runtime), **config}), encoding="utf-8")
        surroundings = {**os.environ, "LOGS_DIRECTORY": folder, "TRILLAMA_CACHE": folder, **(env or {})}
        process = await asyncio.create_subprocess_exec(
            *(*through, sys.executable, "-m", "launcher", "serve", "--config", str(file), *arguments),
            env=surroundings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=pass_fds,
        )
        serve = Serve(
            process=process,
            url=f"http://127.0.0.1:{port}",
            config=file,
            runtime=runtime,
            logs=Path(folder),
            env=surroundings,
        )
        try:
            if ready:
                await serve.until("is ready at")
            yield serve
        finally:
            if process.returncode is None:
                process.kill()
            await serve.ended()


def _argv(process: psutil.Process) -> list[str]:
    """Its command line; empty for one that has just ended."""
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def quick_engine() -> dict[str, object]:
    """The `[engine]` of a test to which it does not matter: the native one if it is here, for it starts sooner."""
    settings: dict[str, object] = {"gpu_layers": 0, "threads": 1}
    with suppress(EngineMissing):
        settings["llama_server"] = str(native_binary())
    return settings


async def gone(processes: list[psutil.Process], within_s: float = 20.0) -> None:
    """Wait until none of these processes lives; fails naming those that do."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, within_s)
    assert not alive, [(one.pid, one.cmdline()) for one in alive if one.is_running()]


async def empty(folder: Path, within_s: float = 10.0) -> None:
    """Wait until the folder is empty; fails naming what stays."""
    try:
        async with asyncio.timeout(within_s):
            while any(folder.iterdir()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"left behind: {json.dumps([str(path) for path in folder.rglob('*')])}") from None
