"""Tells the Fronts which nodes there are, and carries out `status`, `drain`, `roll` and `down`. Knows no Ray.

It owns what must outlive a restart of the head: the roll's number, the pinned vector space, the drained hosts and the
nodes that were used last, in one file.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import aiohttp
import orjson
import psutil
from aiohttp import web
from pydantic import ValidationError

from launcher.cluster.client import CONTROL, ClusterView, ProgramView
from launcher.cluster.nodes import (
    ABSENT,
    SEEN,
    WANTED,
    Remembered,
    Seen,
    Wanted,
    fixed_verdicts,
    listed_nodes,
    next_spaces,
    node_verdicts,
)
from launcher.cluster.ray_start import RayAccess
from launcher.errors import ConfigError
from launcher.host.disk import atomic_file
from launcher.supervision.kept import KeptProgram
from proxy.bulk.durable import write_durably

log = logging.getLogger(__name__)

_ROUND_S = 0.5
AWAY_S = 10.0  # without news Ray counts as away
ENDING_S = 60.0
_TIMEOUT = aiohttp.ClientTimeout(total=5)


@dataclass(frozen=True, slots=True)
class NodeWish:
    """What the user fixes: the vector spaces, and either how Ray is reached, or nodes by name that run without it."""

    spaces: Mapping[str, str]
    urls: Mapping[str, str]
    access: RayAccess | None


class Director:
    """`state` is the file of what is remembered, `fronts` are the Fronts' control sockets."""

    def __init__(self, state: Path, folder: Path, url: str, wish: NodeWish, fronts: Sequence[Path]) -> None:
        self.programs: list[KeptProgram] = []
        self._state = state
        self._folder = folder
        self._url = url
        self._wish = wish
        self._fronts = fronts
        self._remembered = _read(state)
        self._seen = Seen()
        self._write_wanted()

    async def run(self) -> NoReturn:
        """Tell the Fronts which nodes there are, again and again: one of them may have been started again."""
        while True:
            self._decide()
            await asyncio.gather(*(self._tell(front) for front in self._fronts))
            await asyncio.sleep(_ROUND_S)

    @asynccontextmanager
    async def serving(self, end: Callable[[], None]) -> AsyncIterator[None]:
        """Serve the commands on a socket in the private folder for as long as the block lasts; `end` ends the head."""

        async def status(_: web.Request) -> web.Response:
            return web.Response(text=(await self.view()).model_dump_json(), content_type="application/json")

        async def drain(request: web.Request) -> web.Response:
            host = request.match_info["host"]
            drained = set(self._remembered.drained)
            changed = drained - {host} if request.method == "DELETE" else drained | {host}
            self._remember(drained=tuple(sorted(changed)))
            self._decide()
            await asyncio.gather(*(self._tell(front) for front in self._fronts))
            return await status(request)

        async def roll(request: web.Request) -> web.Response:
            if self._wish.urls:
                return web.Response(status=409, text="these nodes run as services of their own: restart them there")
            self._remember(revision=self._remembered.revision + 1, rolling=True)
            self._write_wanted()
            return await status(request)

        async def down(request: web.Request) -> web.Response:
            answer = await status(request)
            await self._end_nodes()
            end()
            return answer

        app = web.Application()
        app.add_routes([web.get("/status", status), web.post("/roll", roll), web.post("/down", down)])
        app.add_routes([web.post("/drained/{host}", drain), web.delete("/drained/{host}", drain)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(self._folder / CONTROL)).start()
            yield
        finally:
            await runner.cleanup()

    async def view(self) -> ClusterView:
        """The status now."""
        seen, kept = self._seen, self._remembered
        away = time.time() - seen.at > AWAY_S
        fronts = tuple(await asyncio.gather(*(_nodes_of(front) for front in self._fronts)))
        nodes = node_verdicts(seen.reports.nodes, kept.spaces, kept.drained)
        return ClusterView(
            url=self._url,
            pid=psutil.Process().pid,
            ray="none" if self._wish.urls else "away" if seen.at and away else seen.status.lower(),
            access=self._wish.access,
            message=seen.message,
            revision=kept.revision,
            rolling=kept.rolling,
            spaces=kept.spaces,
            hosts=seen.hosts,
            nodes=fixed_verdicts(self._wish.urls, fronts, kept.drained) if self._wish.urls else nodes,
            fronts=fronts,
            programs=tuple(_program(one) for one in self.programs),
        )

    def _decide(self) -> None:
        """Read the latest news, and decide which vector space is served and by which nodes."""
        try:
            self._seen = Seen.model_validate_json((self._folder / SEEN).read_bytes())
        except (FileNotFoundError, ValidationError):  # not yet: the nodes used last are used
            return
        kept, reports = self._remembered, self._seen.reports
        rows = [report for report, _ in reports.nodes if report.host not in kept.drained]
        spaces = next_spaces(kept.spaces, self._wish.spaces, rows, kept.revision if kept.rolling else None)
        if spaces != kept.spaces:
            log.warning("the cluster serves the vector spaces %s from now on, before it was %s", spaces, kept.spaces)
        nodes = listed_nodes(kept.nodes, reports, spaces, kept.drained)
        rolling = kept.rolling and not (rows and all(one.ready and one.revision == kept.revision for one in rows))
        if (spaces, nodes, rolling) != (kept.spaces, kept.nodes, kept.rolling):
            self._remember(spaces=dict(spaces), nodes=nodes, rolling=rolling)

    async def _tell(self, front: Path) -> None:
        try:
            async with _session(front) as session:
                drained, fixed = self._remembered.drained, self._wish.urls
                listed = {name: url for name, url in fixed.items() if name not in drained}
                body = orjson.dumps(listed if fixed else self._remembered.nodes)
                async with session.put("http://front/nodes", data=body) as response:
                    if response.status >= 400:
                        log.error("%s refuses the nodes: %s", front.stem, await response.text())
        except (aiohttp.ClientError, OSError, TimeoutError):
            return  # it starts; the next round tells it

    def _remember(self, **changes: object) -> None:
        self._remembered = self._remembered.model_copy(update=changes)
        content = self._remembered.model_dump_json().encode()
        write_durably(self._state, lambda file: file.write(content))

    async def _end_nodes(self) -> None:
        """End the nodes on all hosts; without Ray's answer within ENDING_S they end when their hosts lose the head."""
        if self._wish.urls:
            return
        self._write_wanted(nodes=False)
        self._remember(spaces={}, nodes={}, rolling=False)  # what is started next may be another model
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING_S):
                while self._seen.status != ABSENT:  # noqa: ASYNC110 # another process sets no event
                    await asyncio.sleep(_ROUND_S)

    def _write_wanted(self, *, nodes: bool = True) -> None:
        wanted = Wanted(revision=self._remembered.revision, nodes=nodes)
        with atomic_file(self._folder / WANTED) as unfinished:  # the process that deploys reads it meanwhile
            unfinished.write_text(wanted.model_dump_json(), encoding="utf-8")


def _read(state: Path) -> Remembered:
    try:
        return Remembered.model_validate_json(state.read_bytes())
    except FileNotFoundError:
        return Remembered()
    except ValidationError as error:
        raise ConfigError(
            f"{state} is damaged: remove it, and the first ready node decides the vector spaces"
        ) from error


def _session(socket: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=_TIMEOUT)


async def _nodes_of(front: Path) -> dict[str, dict[str, object]]:
    """The Front's view of the nodes; empty if it does not answer."""
    try:
        async with _session(front) as session, session.get("http://front/nodes") as response:
            found = orjson.loads(await response.read())
            return found if isinstance(found, dict) else {}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return {}


def _program(program: KeptProgram) -> ProgramView:
    resident = 0
    try:
        own = psutil.Process(program.pid) if program.pid else None
        resident = sum(one.memory_info().rss for one in [own, *own.children(recursive=True)]) if own else 0
    except psutil.Error:
        resident = 0  # it ends just now
    return ProgramView(name=program.name, pid=program.pid, restarts=max(program.starts - 1, 0), resident_bytes=resident)
