"""The machine that a bench runs on: what it is, how busy others keep it, and what a process holds of it."""

import os
from pathlib import Path

import psutil


def resident_mib(pid: int) -> float:
    """The resident bytes of a process."""
    return float(psutil.Process(pid).memory_info().rss / 2**20)


def busy_percent() -> float:
    """The part of all cores that other programs use now, while nothing of ours runs."""
    return psutil.cpu_percent(interval=1.0)


def described() -> str:
    """The machine in one line."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "unknown processor")
    return f"{model}, {os.cpu_count()} cores"
