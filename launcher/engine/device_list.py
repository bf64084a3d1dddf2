"""Parses the GPUs that an engine lists: each card once, and whether its memory is the host's. Pure.

llama.cpp lists a card once for each backend it was built with, under slightly different names, and gives no id.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MIB = 2**20
# `  NAME: DESCRIPTION (TOTAL MiB, FREE MiB free)`, from common_print_available_devices of llama.cpp.
ROW = re.compile(r"^ +([A-Za-z]+)(\d*): (.*) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)
# `ggml_vulkan: 0 = NAME (DRIVER) | uma: 1 | …`, behind a time or not: whether the device uses the host's memory.
UMA = re.compile(r"^(?:[\d.]+ \w )?ggml_vulkan: (\d+) = .*\| uma: ([01])\b", re.MULTILINE)
# Of several backends that list a card, the first of these is used: the vendor's own before the general ones.
BACKENDS = ("CUDA", "ROCm", "HIP", "MUSA", "CANN", "SYCL", "MTL", "Metal", "Vulkan", "OpenCL")
SOFTWARE = re.compile(r"llvmpipe|lavapipe|swiftshader|softpipe|basic render", re.IGNORECASE)  # software rendering
# Words that one backend has in a card's name and another has not.
NOISE = frozenset("r tm c nvidia amd ati intel corporation inc graphics gpu card series device".split())  # noqa: SIM905
_ALIKE = 0.1  # of a card's memory: backends differ by the part that the driver reserves
INTEGRATED = re.compile(
    r"""
    (u?hd|iris(\(r\))?(\ (plus|pro|xe))?)\ graphics(?!.*\bmax\b)  # Intel's, except Iris Xe MAX, which is a card
    | ^intel\(r\)\ graphics(?!.*\b(bmg|dg[12])\b)
    | arc(\(tm\))?\ (graphics | (pro\ )?(1[0-9]{2}[vt]|b3[0-9]{2})\b)
    | -core\ processor                                             # AMD's, named after its desktop processor
    | vega\ ([1-9]|1[01])\b | radeon(\(tm\))?\ r[2-7]\ graphics
    | radeon(\(tm\))?\ ([1-9][0-9]{2}m|8[0-9]{3}s)\b | instinct\ mi300a | custom\ gpu\ 0[49]
    | radv\ (raven|picasso|renoir|lucienne|cezanne|barcelo|vangogh)
    | radv\ (rembrandt|raphael|mendocino|phoenix|hawk|strix|krackan)
    | radv\ gfx(90[29c]|1013|103[3-7]|1103|115[0-9])
    | apple | adreno | mali | powervr | v3d | \b(tegra|xavier|orin|thor|gb10|n1x)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
NAMELESS = re.compile(r"^(amd )?(radeon(\(tm\))?|ati) graphics$", re.IGNORECASE)  # usually integrated


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU by llama.cpp's name (CUDA0), or the host's RAM. `integrated`: its memory is the host's RAM."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int
    integrated: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """`used` are the GPUs to plan for; `unused` the integrated ones, if a GPU with its own memory exists."""

    used: tuple[Device, ...]
    unused: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    backend: str
    device: Device
    integrated: bool | None  # None: unknown from its name


def parse_devices(text: str, *, software: bool = False) -> Listed:
    """The GPUs in the output of `--list-devices`, both streams. `software`: include software devices (llvmpipe).

    A card that several backends list counts once, for the first of BACKENDS; several cards of one kind stay separate.
    As in llama.cpp, an integrated GPU counts only if there is no other kind, and then only one of them.
    """
    rows = (row for row in _rows(text) if software or not SOFTWARE.search(row.device.description))
    cards = _cards(sorted(rows, key=lambda row: _rank(row.backend)))
    integrated = sorted((one for one in cards if one.integrated), key=lambda one: -one.total_bytes)
    own_memory = tuple(one for one in cards if not one.integrated)
    return Listed(own_memory, tuple(integrated[:1])) if own_memory else Listed(tuple(integrated[:1]), ())


def _rows(text: str) -> Iterator[_Row]:
    shared = {f"Vulkan{number}": found == "1" for number, found in UMA.findall(text)}
    for backend, number, description, total, free in ROW.findall(text):
        if not int(total):  # an accelerator like BLAS
            continue
        device = Device(
            name=backend + number,
            description=description,
            total_bytes=int(total) * MIB,
            free_bytes=int(free) * MIB,
        )
        yield _Row(backend, device, shared.get(device.name, _by_name(description)))


def _by_name(description: str) -> bool | None:
    return None if NAMELESS.match(description) else INTEGRATED.search(description) is not None


def _rank(backend: str) -> int:
    return BACKENDS.index(backend) if backend in BACKENDS else len(BACKENDS)


def _cards(rows: Sequence[_Row]) -> list[Device]:
    """One device per card; if any of its backends knows whose memory it uses, that counts.

    Which of two equal cards a second backend means does not matter: the first backend lists both, or the user has
    hidden one (CUDA_VISIBLE_DEVICES).
    """
    found: list[list[_Row]] = []
    for row in rows:
        same = [card for card in found if card[0].backend != row.backend and _one_card(card[0].device, row.device)]
        if same:
            same[0].append(row)
        else:
            found.append([row])
    return [_merged(card) for card in found]


def _merged(card: Sequence[_Row]) -> Device:
    known = [row.integrated for row in card if row.integrated is not None]
    first = card[0].device
    return Device(
        name=first.name,
        description=first.description,
        total_bytes=first.total_bytes,
        free_bytes=first.free_bytes,
        integrated=known[-1] if known else True,  # the last is Vulkan's, which reports it
    )


def _one_card(one: Device, other: Device) -> bool:
    alike = abs(one.total_bytes - other.total_bytes) <= _ALIKE * max(one.total_bytes, other.total_bytes)
    words, others = _words(one.description), _words(other.description)
    return alike and (words <= others or others <= words)


def _words(description: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", description.lower())) - NOISE
