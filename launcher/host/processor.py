"""This machine's processor according to Linux: its name, and the instruction sets that a compiler may use."""

import re
from contextlib import suppress
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
AMX = ("amx_tile", "amx_int8", "amx_bf16")
# The x86 flags that `-march=native` may use by itself, or that llama.cpp uses by name. Others (virtualisation, bugs and
# their mitigations) change with the kernel, and no program depends on them.
X86_INSTRUCTIONS = re.compile(
    r"sse.*|pni|ssse3|avx.*|amx.*|apx.*|fma4?|xop|f16c|bmi[12]|tbm|abm|popcnt|movbe|cx16|lahf_lm|v?aes|v?pclmulqdq|gfni"
)
ARM_NO_INSTRUCTIONS = frozenset({"cpuid", "evtstrm"})


def instructions() -> frozenset[str]:
    """The processor's instruction sets, by Linux's names. Empty if unknown, as outside Linux."""
    return parse_instructions(_cpuinfo())


def name() -> str:
    """The processor's name; "processor" if unknown."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return found[1] if found else "processor"


def parse_instructions(cpuinfo: str) -> frozenset[str]:
    """The instruction sets in the text of /proc/cpuinfo: all cores have the same."""
    if found := re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE):
        return frozenset(flag for flag in found[1].split() if X86_INSTRUCTIONS.fullmatch(flag))
    if found := re.search(r"^Features\s*:(.*)$", cpuinfo, re.MULTILINE):
        return frozenset(found[1].split()) - ARM_NO_INSTRUCTIONS
    return frozenset()


def _cpuinfo() -> str:
    with suppress(OSError):
        return CPUINFO.read_text(encoding="utf-8", errors="replace")
    return ""
