"""Choices made for the user at an earlier start, kept in the cache folder and made again.

Another quantisation would give other vectors, and another length could reject texts that were served before.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomli_w
from pydantic import Field, ValidationError

from launcher.settings.folders import cache_dir
from proxy.contract.family import Positive, Strict

_ALIKE = 0.02  # of a device's memory: an update of driver or kernel changes what it reserves


class Length(Strict):
    """The longest text, and what it was chosen for: the models as served, and the total MiB of each device."""

    max_input_tokens: Positive
    served: str
    totals: dict[str, int] = Field(default_factory=dict)

    def holds_for(self, served: str, totals: Mapping[str, int]) -> bool:
        """Whether it was chosen for these models and devices."""
        return (
            served == self.served
            and totals.keys() == self.totals.keys()
            and all(abs(size - self.totals[name]) <= _ALIKE * size for name, size in totals.items())
        )


def quantization(family: str) -> str | None:
    """The last choice of "auto"; None if there was none."""
    try:
        return _quantization_file(family).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def length(family: str) -> Length | None:
    """The length chosen at the last start; None if there was none."""
    try:
        return Length.model_validate(tomllib.loads(_length_file(family).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError):
        return None


def write_choices(family: str, chosen: str | None, longest: Length | None) -> None:
    """Store both choices, if they were made; each file is replaced atomically. Raises OSError."""
    if chosen is not None and chosen != quantization(family):
        _write(_quantization_file(family), chosen)
    if longest is not None and longest != length(family):
        _write(_length_file(family), tomli_w.dumps(longest.model_dump()))


def _quantization_file(family: str) -> Path:
    return cache_dir() / "auto" / f"{family}.txt"


def _length_file(family: str) -> Path:
    return cache_dir() / "auto" / f"{family}-length.toml"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
