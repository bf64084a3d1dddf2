"""Processors that this machine does not have."""

from pathlib import Path

import pytest

from launcher.host import processor


def have(folder: Path, monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    """From here on the processor has these flags, by Linux's names."""
    cpuinfo = folder / "cpuinfo"
    cpuinfo.write_text(f"model name\t: Some Processor\nflags\t\t: fpu {flags}\n", encoding="utf-8")
    monkeypatch.setattr(processor, "CPUINFO", cpuinfo)
