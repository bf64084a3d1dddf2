"""`status`, `logs`, `restart` and `reload` contact only trusted launchers, not any socket that has the right name."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from launcher.control.client import find_running
from launcher.control.status import BackendView, EngineView, View
from launcher.control.trusted_socket import is_ours, is_served_by_its_owner
from launcher.errors import Declined, LauncherError, NotRunning
from launcher.fleet.address import target
from launcher.settings.config import load
from launcher.supervision.states import BackendState
from tests.support.servers.trillama import Done, clean, command, trillama

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
OBEYED = ("\x1b", "\x9b", "\x07", "\u202e", "\u2066", "\r")
EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202eb\u2066\r[bold red]"


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is too long a path for a socket
        yield Path(folder)


@pytest.fixture
def ours(base: Path) -> Iterator[Path]:
    """A socket as a launcher makes it."""
    path = Path(tempfile.mkdtemp(prefix="trillama-", dir=base), "control.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path


def test_the_socket_of_our_own_launcher_is_trusted(ours: Path) -> None:
    assert is_ours(ours)
    assert is_served_by_its_owner(ours)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_a_folder_that_others_may_enter_is_not_trusted(ours: Path, mode: int) -> None:
    ours.parent.chmod(mode)
    assert not is_ours(ours)


def test_a_link_to_a_folder_a_file_and_nothing_are_not_trusted(base: Path, ours: Path) -> None:
    linked = base / "trillama-linked"
    linked.symlink_to(ours.parent)
    file = Path(tempfile.mkdtemp(prefix="trillama-", dir=base), "control.sock")
    file.touch()
    assert not any(is_ours(path) for path in (linked / "control.sock", file, base / "trillama-none" / "control.sock"))


@as_root
def test_another_users_socket_is_trusted_only_if_that_user_owns_the_parent(base: Path, ours: Path) -> None:
    os.chown(ours, STRANGER, -1)
    assert not is_ours(ours)
    os.chown(ours.parent, STRANGER, -1)
    assert not is_ours(ours)
    os.chown(base, STRANGER, -1)  # as systemd gives /run/trillama to the service's user
    assert is_ours(ours)


@as_root
def test_the_process_behind_the_socket_must_be_its_owners(base: Path) -> None:
    path = Path(tempfile.mkdtemp(prefix="trillama-", dir=base), "control.sock")
    listen = "socket.socket(fileno=int(sys.argv[1])).listen(); print(flush=True); input()"
    script = f"import os, socket, sys; os.setuid({STRANGER}); {listen}"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        argv = (sys.executable, "-c", script, str(bound.fileno()))
        with subprocess.Popen(
            argv, pass_fds=[bound.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as stranger:
            assert stranger.stdout
            stranger.stdout.readline()
            assert is_ours(path)
            assert not is_served_by_its_owner(path)
            stranger.communicate(b"\n")


@asynccontextmanager
async def launcher(folder: Path, view: View) -> AsyncIterator[list[str]]:
    """A server on that socket; yields the paths that were requested."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text=view.model_dump_json(), content_type="application/json")

    async with served(folder, answer):
        yield asked


@asynccontextmanager
async def served(folder: Path, answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[None]:
    """Whatever is asked on that socket is answered by this."""
    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(folder / "control.sock")).start()
        yield
    finally:
        await runner.cleanup()


def view(logs: Path, word: str = "fine") -> View:
    code = BackendView(
        name="code",
        state=BackendState.FAILED,
        since=0,
        pid=None,
        loaded=0,
        restarts=0,
        cause=word,
        model=f"/{word}.gguf",
        batch_tokens=1,
        slots=1,
        on_demand=False,
        devices=(word,),
        planned_bytes={},
        resident_bytes=None,
        waiting_texts=None,
        waiting_tokens=None,
        tokens_per_s=None,
    )
    engine = EngineView(origin=word, version=word)
    return View(version=word, url=word, port=1, since=0, family=word, logs=str(logs), engine=engine, backends=(code,))


async def ask(base: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """A command of a user whose runtime folder that is."""
    return await asyncio.to_thread(trillama, *arguments, env={"XDG_RUNTIME_DIR": str(base), **(env or {})})


async def test_another_users_launcher_is_named_and_not_contacted(base: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="trillama-", dir=base))
    folder.chmod(0o755)
    settings = load(None, {"runtime_dir": base})
    async with launcher(folder, view(base)) as asked:
        with pytest.raises(NotRunning, match=f"{folder} belongs to another user, or lets others in, and was not"):
            await find_running(settings, None)
        done = await ask(base, "status")
    assert (done.code, asked) == (69, [])


async def test_of_several_the_one_with_the_given_address_or_port_is_asked(base: Path) -> None:
    settings = load(None, {"runtime_dir": base, "port": 4})
    folders = [Path(tempfile.mkdtemp(prefix="trillama-", dir=base)) for _ in range(2)]
    views = [view(base).model_copy(update={"url": f"http://127.0.0.1:{port}", "port": port}) for port in (8, 9)]
    async with launcher(folders[0], views[0]), launcher(folders[1], views[1]):
        for meant in (target("localhost:9/v1", None), target(None, 9)):
            assert (await find_running(settings, meant)).view.port == 9
        assert (await find_running(settings.with_host(port=8), None)).view.port == 8
        with pytest.raises(NotRunning, match=r"several run here .*: name one with --url, --port"):
            await find_running(settings, None)
        with pytest.raises(NotRunning, match=r"no trillama runs here at port 7; there is http"):
            await find_running(settings, target(None, 7))
        several = await ask(base, "restart", "cobol", "--port", "8")
    assert several.code == 2
    assert "there is no backend cobol; there are code" in several.err


@pytest.mark.parametrize(("status", "kind"), [(200, LauncherError), (409, Declined)])
async def test_one_that_answers_oddly_hides_no_other(base: Path, status: int, kind: type[LauncherError]) -> None:
    async def oddly(_: web.Request) -> web.Response:
        return web.Response(text='{"of": "another version"}', status=status)

    settings = load(None, {"runtime_dir": base})
    odd, right = (Path(tempfile.mkdtemp(prefix="trillama-", dir=base)) for _ in range(2))
    async with served(odd, oddly):
        with pytest.raises(kind, match=r"another version"):
            await find_running(settings, None)
        async with launcher(right, view(base)):
            assert (await find_running(settings, None)).socket.parent == right


async def test_what_a_launcher_says_is_text_on_the_terminal(base: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="trillama-", dir=base))
    async with launcher(folder, view(base, EVIL)):
        page, for_programs = await ask(base, "status"), await ask(base, "status", "--json")
    assert page.code == 1  # it does not serve
    assert not any(mark in page.out + for_programs.out for mark in OBEYED)
    assert r"a\x1b[2J\x1b]0;title" in page.out
    assert "[bold red]" in page.out
    assert json.loads(for_programs.out)["version"] == EVIL


async def test_a_watched_status_goes_into_a_pipe_as_it_comes(base: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="trillama-", dir=base))
    env = clean({"XDG_RUNTIME_DIR": str(base)})
    async with launcher(folder, view(base)), asyncio.timeout(60):
        watching = await asyncio.create_subprocess_exec(
            *command("status", "--watch"), env=env, stdout=asyncio.subprocess.PIPE
        )
        assert watching.stdout
        pages = 0
        while pages < 2:
            pages += b"trillama fine" in await watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert await watching.wait() == 0


async def test_a_log_is_text_on_the_terminal(base: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="trillama-", dir=base))
    (base / "code.log").write_text(f"{EVIL}\nplain\n", encoding="utf-8")
    async with launcher(folder, view(base)):
        done = await ask(base, "logs", "code")
    assert done.code == 0
    assert not any(mark in done.out for mark in OBEYED)
    assert r"a\x1b[2J" in done.out
    assert done.out.endswith("plain\n")
