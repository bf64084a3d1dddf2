"""Another program's `proxy` or `launcher` in place of ours is named before anything else, with the remedy."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.trillama import clean

ROOT = Path(__file__).parents[2]
VERSION = "trillama 0.1.0"


def started(path: str, module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-P", "-m", module, "--version")
    env = clean({"PYTHONPATH": path})
    return subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(("module", "name"), [("launcher", "proxy.py"), ("trillama", "launcher.py")])
def test_a_module_on_pythonpath_that_hides_one_of_ours_is_named(tmp_path: Path, module: str, name: str) -> None:
    intruder = tmp_path / name
    intruder.write_text("import sys\nsys.exit('usage: another program')\n", encoding="utf-8")
    done = started(f"{tmp_path}:{ROOT}", module, tmp_path)
    assert done.returncode == 78
    assert str(intruder) in done.stderr
    assert "pip uninstall proxy.py" in done.stderr
    assert "pipx install" in done.stderr
    assert "another program\n" not in done.stderr  # it was not run
    assert done.stderr.count("\n") == 1


def test_a_package_that_overwrote_ours_is_named(tmp_path: Path) -> None:
    for name in ("trillama.py", "launcher"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__init__.py").write_text("", encoding="utf-8")
    done = started(str(tmp_path), "launcher", tmp_path)
    assert done.returncode == 78
    assert str(tmp_path / "proxy") in done.stderr


@pytest.mark.parametrize("module", ["launcher", "trillama"])
def test_our_own_packages_are_believed(tmp_path: Path, module: str) -> None:
    done = started(str(ROOT), module, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, VERSION), done.stderr
