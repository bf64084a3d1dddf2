"""Which model files are served: the `[models]` table of the host's file."""

from pydantic import Field

from proxy.contract.family import Strict
from proxy.contract.settings_file import LocalPath


class ModelSettings(Strict):
    """Which weights to serve; `[models]` in the host's file. A path in `files` is used as it is, without a download.

    `quantization` "auto" picks the best that fits this machine (`launcher.planning`); if absent, the family's default.
    """

    # any that the repositories offer, or "auto": the best that fits this machine; else the family's own
    quantization: str | None = None
    # a local GGUF file per backend, instead of a download; a relative path is relative to the working directory
    files: dict[str, LocalPath] = Field(default_factory=dict)
    # a LoRA per backend as a local GGUF file, instead of the family's, or where it has none
    lora_files: dict[str, LocalPath] = Field(default_factory=dict)
    # take images too: another 1.3 GB to download, and as much memory for each model; needs an engine built here
    images: bool = False
    # a local mmproj file, the vision encoder for images, instead of the family's
    mmproj: LocalPath | None = None
