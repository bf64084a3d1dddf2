"""What is read of /proc/cpuinfo."""

from pathlib import Path

import pytest

from launcher.host import processor
from launcher.host.processor import parse_instructions
from tests.support.host.machine import have

XEON = "fpu vme tsc_known_freq sse sse4_2 ssse3 pni fma avx2 avx512_vnni avx512f amx_tile amx_int8 hypervisor ibpb umip"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (f"processor\t: 0\nflags\t\t: {XEON}\nbugs\t\t: spectre_v1\n\nprocessor\t: 1\nflags\t\t: fpu\n",
         "amx_int8 amx_tile avx2 avx512_vnni avx512f fma pni sse sse4_2 ssse3"),
        ("vmx flags\t: vnmi avx_like\nflags\t: misalignsse 3dnowprefetch\n", ""),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm i8mm cpuid sve\n", "asimd fp i8mm sve"),
        ("", ""),
    ],
)  # fmt: skip
def test_instructions_are_those_that_a_compiler_uses(cpuinfo: str, expected: str) -> None:
    assert " ".join(sorted(parse_instructions(cpuinfo))) == expected


def test_a_system_that_does_not_tell_has_no_name_and_no_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(tmp_path, monkeypatch, "avx2")
    assert (processor.name(), processor.instructions()) == ("Some Processor", frozenset({"avx2"}))
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "nowhere")
    assert (processor.name(), processor.instructions()) == ("processor", frozenset())
