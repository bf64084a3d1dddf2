"""The CPU's image is built and run without a registry; the file for CUDA differs from it in the engine alone."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.conftest import ROOT

FOLDER = ROOT / "packaging" / "containers"
UNAVAILABLE = 77  # build.sh's exit code
BUILD_TIMEOUT_S = 800
RUN = """
ip link set lo up
$BUILDAH run --isolation chroot $CONTAINER -- $ENTRYPOINT serve --demo --tiny --host 0.0.0.0 &
! $BUILDAH run --isolation chroot $CONTAINER -- "$@" 2> /dev/null # it is not ready yet
deadline=$(($(date +%s) + 120))
until $BUILDAH run --isolation chroot $CONTAINER -- "$@" 2> /dev/null; do [ $(date +%s) -lt $deadline ]; done
echo healthy as $($BUILDAH run --isolation chroot $CONTAINER -- id -un)
$BUILDAH run --isolation chroot $CONTAINER -- sh -c 'ls /var/lib/trillama/golden; touch /opt/trillama/x' || true
"""


@pytest.fixture(scope="module")
def storage() -> Iterator[Path]:
    """Where buildah keeps the image, which is built; skips the test where it cannot be."""
    folder = ROOT / ".roots" / "test-buildah"
    if os.geteuid() != 0:
        pytest.skip("buildah in a chroot needs root")
    done = subprocess.run(
        (str(FOLDER / "build.sh"), str(folder)), capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    yield folder
    for command in ("rm", "rmi"):
        subprocess.run((*buildah(folder), command, "--all"), check=True, capture_output=True, timeout=100)


def buildah(storage: Path) -> tuple[str, ...]:
    return ("buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run"))


@pytest.mark.timeout(1200)
def test_the_image_serves_as_its_own_user_and_its_health_is_readiness(storage: Path) -> None:
    tell = buildah(storage)
    container = output(*tell, "from", "localhost/trillama").strip()
    config = json.loads(output(*tell, "inspect", container))["Docker"]["config"]
    assert (config["User"], set(config["Volumes"])) == ("trillama", {"/var/cache/trillama", "/var/lib/trillama"})
    kind, *health = config["Healthcheck"]["Test"]
    assert (kind, config["Entrypoint"]) == ("CMD", ["trillama"])
    env = {**os.environ, "BUILDAH": " ".join(tell), "CONTAINER": container, "ENTRYPOINT": config["Entrypoint"][0]}
    isolated = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")  # its end is all processes' end
    argv = (*isolated, "sh", "-ec", RUN, "sh", *health)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "healthy as trillama" in done.stdout
    assert ".npy" in done.stdout
    assert "cannot touch '/opt/trillama/x'" in done.stderr


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=100).stdout


def steps(kind: str) -> list[str]:
    """The instructions of a container file, each in one line."""
    text = (FOLDER / f"{kind}.Containerfile").read_text(encoding="utf-8").replace("\\\n", "")
    return [re.sub(r" +", " ", line) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_file_for_cuda_differs_in_the_base_and_the_engine_alone() -> None:
    cpu, cuda = steps("cpu"), steps("cuda")
    own = [line for line in cuda if line not in cpu]
    assert [line.split()[0] for line in own] == ["ARG", "ARG", "FROM", "ARG", "RUN", "RUN", "FROM", "ENV"]
    assert own[4].endswith("ca-certificates g++")
    assert "engine build --cuda --cuda-arch" in own[5]
    assert own[7].replace("/opt/trillama/engine:", "") in cpu
    assert len(cuda) == len(cpu) + 3  # two arguments more, and the engine


def test_the_images_have_what_a_service_needs_of_the_extras() -> None:
    assert sum("pip install" in line and line.endswith('"/src[otel,pdf]"') for line in steps("cpu")) == 1


def test_each_file_that_compose_mounts_is_here() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    mounted = re.findall(r"- (\.[^:]*):", text)
    assert len(mounted) == 5
    assert [path for path in mounted if not (FOLDER / path).exists()] == []
    assert not re.search(r"- \d+:\d+", text)  # ports are open to this machine alone
    assert text.count("- 127.0.0.1:") == 3
