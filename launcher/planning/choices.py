"""What was chosen for the user at an earlier start and is chosen again: kept in the cache folder.

Another quantisation gives other vectors, and another length refuses texts that were served before.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomli_w
from pydantic import Field, ValidationError

from launcher.settings.folders import cache_dir
from proxy.contract.family import Positive, Strict

ALIKE = 0.02  # of a device's memory: a driver's or a kernel's update changes what it keeps for itself


class Length(Strict):
    """The longest text, and what it was chosen for: the models as they are served, and each device's MiB in all."""

    max_input_tokens: Positive
    served: str
    totals: dict[str, int] = Field(default_factory=dict)

    def holds_for(self, served: str, totals: Mapping[str, int]) -> bool:
        """Whether that is so now."""
        return (
            served == self.served
            and totals.keys() == self.totals.keys()
            and all(abs(size - self.totals[name]) <= ALIKE * size for name, size in totals.items())
        )


def quantization(family: str) -> str | None:
    """What "auto" chose last; None if it never did."""
    try:
        return _quantization_file(family).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def length(family: str) -> Length | None:
    """The longest text of the last start; None if none was chosen."""
    try:
        return Length.model_validate(tomllib.loads(_length_file(family).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError):
        return None


def keep(family: str, chosen: str | None, longest: Length | None) -> None:
    """Keep both choices, where they were made. What is there is never half replaced. Raises OSError."""
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
