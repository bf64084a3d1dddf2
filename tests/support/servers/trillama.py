"""`trillama` as a user runs it: one command in a process of its own, on a hub's cache of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

TIMEOUT_S = 60

# Forks itself for each command that it reads: all but the loading of Python, which takes half a second each.
FORKING = """
import gc, importlib, json, os, sys
from launcher import __main__
from launcher.cli import app
for place in app.COMMANDS.values():
    importlib.import_module(place.partition(":")[0])
gc.freeze()
for line in sys.stdin:
    out, err, *arguments = json.loads(line)
    if (pid := os.fork()) == 0:
        for path, fd in ((os.devnull, 0), (out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), fd)
        sys.argv, code = ["trillama", *arguments], 0
        try:
            __main__.main()
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
        os._exit(code or 0)  # the end of an interpreter takes as long as the command
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@contextmanager
def commands(env: Mapping[str, str]) -> Iterator[Run]:
    """A function that runs `trillama` with its arguments in that environment, quickly."""
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            (sys.executable, "-c", FORKING), env=clean(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as forking,
    ):
        assert forking.stdin
        assert forking.stdout
        stdin, stdout = forking.stdin, forking.stdout

        def run(*arguments: str) -> Done:
            out, err = Path(folder, "out"), Path(folder, "err")
            for path in (out, err):
                path.unlink(missing_ok=True)
            stdin.write(json.dumps((str(out), str(err), *arguments)) + "\n")
            stdin.flush()
            return Done(int(stdout.readline()), out.read_text("utf-8"), err.read_text("utf-8"))

        yield run
        stdin.close()


def trillama(
    *arguments: str, env: Mapping[str, str], before: tuple[str, ...] = (), preexec: Callable[[], object] | None = None
) -> Done:
    """Run `trillama` with those arguments to its end; `before` is a command that starts it."""
    argv = (*before, *command(*arguments))
    done = subprocess.run(  # only sets a limit
        argv, env=clean(env), capture_output=True, text=True, timeout=TIMEOUT_S, check=False, preexec_fn=preexec
    )
    return Done(done.returncode, done.stdout, done.stderr)


def command(*arguments: str) -> tuple[str, ...]:
    return sys.executable, "-m", "launcher", *arguments


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """`env` in ours, without what a user of the hub may have set."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("HF_")}, **env}
