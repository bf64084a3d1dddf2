"""The vision encoder's file: where it comes from, and whether it fits the family's models.

llama.cpp's name for it is mmproj, for multimodal projector; it has the whole encoder.
"""

from pathlib import Path

from launcher.errors import ConfigError, ModelError
from launcher.hub.cache import MMPROJ
from launcher.models.gguf_file import brief
from launcher.models.sources import ModelFile, check_complete, find_here
from launcher.settings.family import FamilyFile
from launcher.settings.models import ModelSettings
from proxy.contract.gguf import Header

PROJECTOR = "qwen2.5vl_merger"
_REQUIRED = ("clip.vision.n_wa_pattern", "clip.vision.block_count", "clip.vision.embedding_length")
_F16 = 1  # general.file_type
_FIX = "make one of the original with llama.cpp's convert_hf_to_gguf.py --mmproj, and set mmproj under [models]"


def mmproj_file(family: FamilyFile, settings: ModelSettings) -> ModelFile | None:
    """The file to serve images with; None if images are off. Raises ConfigError if the family has none."""
    if not settings.images:
        return None
    if settings.mmproj:
        return ModelFile(backend=MMPROJ, origin=settings.mmproj)
    if place := family.weights.mmproj_on_hub:
        return ModelFile(backend=MMPROJ, origin=place)
    own = ", or set mmproj = PATH under [models]" if family.weights.can_pool_images else ""
    raise ConfigError(f"images: {family.name} takes texts only: leave images out{own}")


def mmproj_bytes(family: FamilyFile, settings: ModelSettings) -> int:
    """The size of that file, as the family gives it until the file is here; 0 if images are off."""
    wanted = mmproj_file(family, settings)
    if wanted is None:
        return 0
    if (path := find_here(wanted)) and path.is_file():
        return path.stat().st_size
    return family.weights.mmproj.bytes if family.weights.mmproj else 0


def check_mmproj(path: Path, family: FamilyFile) -> Header:
    """The header of a complete file that fits the family. Raises ModelError with what contradicts."""
    header = check_complete(path)
    metadata = header.metadata
    if metadata.get("general.architecture") != "clip":
        raise ModelError(f"{path}: it is not a vision encoder (mmproj): {_FIX}")
    found = metadata.get("clip.projector_type", metadata.get("clip.vision.projector_type"))
    if found != PROJECTOR:
        raise ModelError(f"{path}: its projector is {brief(found)}, and images need {PROJECTOR}: {_FIX}")
    if (length := metadata.get("clip.vision.projection_dim")) != family.dimensions:
        raise ModelError(
            f"{path}: it makes {brief(length)} numbers of a token, and {family.name} has {family.dimensions}: it is "
            f"another model's; {_FIX}"
        )
    if missing := [key for key in _REQUIRED if key not in metadata]:
        raise ModelError(f"{path}: its header has no {missing[0]}, and llama-server would not start: {_FIX}")
    return header


def doubt(header: Header) -> str | None:
    """A warning for users about a file that may give no vectors; None for any other."""
    if header.metadata.get("general.file_type") != _F16:
        return None
    return "the mmproj file is F16, with which some images had vectors that are not finite: use the one in BF16"
