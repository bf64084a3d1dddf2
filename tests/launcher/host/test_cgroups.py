"""What control groups leave of processors and memory: as versions 1 and 2 write it, nested, and in a real group."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.engine.devices import host_memory
from launcher.host.cgroups import cpu_quota, memory_limits
from launcher.host.cores import engine_threads, physical_cores, usable_cores

MIB = 2**20
CORES = os.cpu_count() or 1


def proc(tmp_path: Path, own: str, *mounts: str) -> Path:
    """A /proc/self; `mounts` are `ROOT TYPE CONTROLLERS`, mounted at tmp_path/cgroup, and below it for version 1."""
    folder = tmp_path / "proc"
    folder.mkdir(exist_ok=True)
    (folder / "cgroup").write_text(own)
    lines = []
    for mount in mounts:
        root, kind, controllers = mount.split()
        top = tmp_path / "cgroup" / ("" if kind == "cgroup2" else controllers)
        lines.append(f"31 23 0:28 {root} {str(top).replace(' ', chr(92) + '040')} rw - {kind} none rw,{controllers}")
    (folder / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + "\n".join(lines) + "\n")
    return folder


def put(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_version_2_counts_the_least_of_our_group_and_all_above_it(tmp_path: Path) -> None:
    path = proc(tmp_path, "0::/a.slice/b.service\n", "/ cgroup2 x")
    top = tmp_path / "cgroup"
    put(top / "a.slice", cpu__max="150000 100000", memory__max=str(1000 * MIB), memory__current=str(300 * MIB))
    put(top / "a.slice", memory__stat=f"anon 5\ninactive_file {100 * MIB}")
    put(top / "a.slice/b.service", cpu__max="max 100000", memory__max="max", memory__high=str(900 * MIB))
    assert cpu_quota(path) == 1.5
    assert memory_limits(path) == [(900 * MIB, 0), (1000 * MIB, 200 * MIB)]
    memory = host_memory(path)
    assert (memory.total_bytes, memory.free_bytes) == (900 * MIB, 800 * MIB)


def test_version_1_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    path = proc(tmp_path, "4:memory:/m\n3:cpu,cpuacct:/c/d\n0::/\n", "/ cgroup cpu,cpuacct", "/ cgroup memory")
    cpu, memory = tmp_path / "cgroup/cpu,cpuacct", tmp_path / "cgroup/memory"
    put(cpu / "c", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    put(cpu / "c/d", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    put(memory, memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="5")
    put(memory / "m", memory__limit_in_bytes=str(64 * MIB), memory__usage_in_bytes=str(70 * MIB))
    put(memory / "m", memory__stat=f"inactive_file 1\ntotal_inactive_file {16 * MIB}")
    assert cpu_quota(path) == 2.0
    assert memory_limits(path) == [(64 * MIB, 54 * MIB)]


@pytest.mark.parametrize("root", ["/docker/abc", "/"])
def test_a_container_sees_its_own_group_as_if_it_were_all(tmp_path: Path, root: str) -> None:
    path = proc(tmp_path, "3:cpu:/docker/abc\n", f"{root} cgroup cpu")
    put(tmp_path / "cgroup/cpu", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert cpu_quota(path) == 0.5
    assert (usable_cores(path), physical_cores(path), engine_threads(path)) == (1, 1, 1)


def test_a_name_with_a_space_and_groups_outside_are_no_trouble(tmp_path: Path) -> None:
    spaced = tmp_path / "a b"
    spaced.mkdir()
    path = proc(spaced, "0::/../../x\n", "/ cgroup2 x")
    put(spaced / "cgroup", cpu__max="100000 100000")
    assert cpu_quota(path) == 1.0


def test_where_nothing_is_limited_or_told_the_engine_chooses(tmp_path: Path) -> None:
    for path in (tmp_path, proc(tmp_path, "nonsense\n0::/\n", "/ cgroup2 x")):
        assert (cpu_quota(path), memory_limits(path)) == (None, [])
        assert host_memory(path).total_bytes == psutil.virtual_memory().total
        if len(os.sched_getaffinity(0)) == CORES:
            assert engine_threads(path) is None


def test_more_than_the_cores_is_no_bound_and_siblings_count_once(tmp_path: Path) -> None:
    path = proc(tmp_path, "0::/\n", "/ cgroup2 x")
    put(tmp_path / "cgroup", cpu__max=f"{CORES * 100000} 100000")
    if len(os.sched_getaffinity(0)) == CORES:
        assert engine_threads(path) is None
    topology = tmp_path / "cpu"
    for core in range(CORES):
        put(topology / f"cpu{core}/topology", thread_siblings="all")
    assert physical_cores(path, topology) == 1


def test_an_affinity_mask_bounds_the_threads() -> None:
    if CORES < 2:
        pytest.skip("one core has no smaller mask")
    assert threads_of(("taskset", "-c", str(min(os.sched_getaffinity(0))))) == "1"


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A group of its own with a quota of half a core."""
    version_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = Path("/sys/fs/cgroup", "" if version_2 else "cpu", f"trillama-test-{os.getpid()}")
    try:
        group.mkdir()
        name, quota = ("cpu.max", "50000 100000") if version_2 else ("cpu.cfs_quota_us", "50000")
        (group / name).write_text(quota)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


def test_a_real_quota_bounds_the_threads(half_a_core: Path) -> None:
    enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    assert threads_of(("sh", "-c", enter, str(half_a_core))) == "1"


def threads_of(through: tuple[str, ...]) -> str:
    code = "from launcher.host.cores import engine_threads; print(engine_threads())"
    done = subprocess.run((*through, sys.executable, "-c", code), capture_output=True, text=True, check=True)
    return done.stdout.strip()
