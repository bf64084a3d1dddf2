"""CPU and memory limits of this process's Linux control groups: the lowest of its own group and its ancestors.

Version 2 has one tree for all controllers; version 1 one tree per controller; a host may have both. See cgroups(7).
"""

import re
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc/self")
_NO_LIMIT = 2**60  # bytes; version 1 writes a number near 2^63 for no limit


def cpu_quota(proc: Path = PROC) -> float | None:
    """The CPU time that this process may use, in CPUs, e.g. 1.5; None without a limit, or if it is unknown."""
    return min((found for group in groups("cpu", proc) if (found := _quota_of(group))), default=None)


def memory_limits(proc: Path = PROC) -> list[tuple[int, int]]:
    """(limit, used bytes that cannot be reclaimed) of each group that has a limit."""
    return [found for group in groups("memory", proc) if (found := _memory_of(group))]


def groups(controller: str, proc: Path = PROC) -> list[Path]:
    """The folders of our groups and their ancestors, as far as they are visible from here."""
    return [
        folder for group, top in _own(controller, proc) for folder in (group, *group.parents) if _below(folder, top)
    ]


def _below(folder: Path, top: Path) -> bool:
    return folder == top or top in folder.parents


def _own(controller: str, proc: Path) -> Iterator[tuple[Path, Path]]:
    """Our group in each tree that has the controller, and the mount point of that tree."""
    try:
        lines = (proc / "cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    paths = {names: path for _, names, path in (line.split(":", 2) for line in lines if line.count(":") >= 2)}
    for names, root, top in _mounts(proc):
        for own, path in paths.items():
            if (own == names == "") or (names and controller in own.split(",") and controller in names.split(",")):
                yield _visible(path, root, top), top


def _visible(path: str, root: str, top: Path) -> Path:
    """The folder of the group `path`, where `root` is mounted at `top`; a container may see only that mount."""
    inside = path if root == "/" else path[len(root) :] if f"{path}/".startswith(f"{root}/") else ""
    group = top / inside.strip("/")
    return group if ".." not in group.parts and group.is_dir() else top


def _mounts(proc: Path) -> Iterator[tuple[str, str, Path]]:
    """Each tree: its controllers ("" for version 2), the mounted group, and the mount point; proc_pid_mountinfo(5)."""
    try:
        lines = (proc / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, top = (re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field) for field in fields[3:5])
        yield ("" if kind[0] == "cgroup2" else kind[-1]), root, Path(top)


def _quota_of(group: Path) -> float | None:
    for read in (_quota_v2, _quota_v1):
        try:
            quota, period = read(group)
        except (OSError, ValueError):  # "max", or no such file
            continue
        return quota / period if quota > 0 and period > 0 else None  # -1: no limit
    return None


def _quota_v2(group: Path) -> tuple[int, int]:
    quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    return int(quota), int(period)


def _quota_v1(group: Path) -> tuple[int, int]:
    return _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")


def _memory_of(group: Path) -> tuple[int, int] | None:
    """Version 2 also has memory.high, above which processes are throttled and memory is reclaimed."""
    limits = [
        found for name in ("memory.max", "memory.high", "memory.limit_in_bytes") if (found := _limit(group / name))
    ]
    if not limits:
        return None
    return min(limits), max(0, _used(group) - _reclaimable(group))


def _limit(file: Path) -> int | None:
    try:
        found = _number(file)
    except (OSError, ValueError):
        return None
    return found if 0 <= found < _NO_LIMIT else None


def _used(group: Path) -> int:
    for name in ("memory.current", "memory.usage_in_bytes"):
        try:
            return _number(group / name)
        except (OSError, ValueError):
            continue
    return 0


def _reclaimable(group: Path) -> int:
    """Bytes of file cache not used recently; version 1 prefixes `total_` to sums that include the groups below."""
    try:
        text = (group / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):
        return 0
    found = {name: int(value) for name, value in re.findall(r"^((?:total_)?inactive_file) (\d+)$", text, re.MULTILINE)}
    return found.get("total_inactive_file", found.get("inactive_file", 0))


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
