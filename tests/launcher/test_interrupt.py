"""Ctrl-C while Python is still loading ends the command, also where other code loses a KeyboardInterrupt."""

import subprocess
import sys

import pytest

# As pydantic's compiled code does, the import of a module drops the KeyboardInterrupt that arrives in it.
LOSING = """
import os, signal, sys, time
from launcher.__main__ import main

class Losing:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0)
            except KeyboardInterrupt:
                pass

sys.meta_path.insert(0, Losing())
sys.argv[1:] = ["status", "--help"]
main()
"""


@pytest.mark.parametrize("module", ["launcher.settings", "launcher.cli.app", "launcher.cli.running"])
def test_ctrl_c_while_loading_is_never_lost(module: str) -> None:
    program = LOSING.replace("MODULE", repr(module))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
