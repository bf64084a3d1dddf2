"""A child that must not outlive its parent."""

import subprocess
import sys

import psutil

from launcher.processes.child import leashed

PARENT = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); sys.stdin.read()"


def test_a_leashed_child_is_killed_with_its_parent() -> None:
    argv = (sys.executable, "-c", PARENT, *leashed((sys.executable, "-c", "print('ready', flush=True); input()")))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        lines = [parent.stdout.readline().strip() for _ in range(2)]
        (pid,) = [int(line) for line in lines if line != "ready"]
        child = psutil.Process(pid)
        parent.kill()
        assert child.wait(60) is None  # gone, although its standard input is open; how is known to its parent alone
